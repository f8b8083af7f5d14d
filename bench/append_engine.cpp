// The baseline `engine` of the workload `append`: one storage on one executor, and a coroutine for
// each upload.

#include "engine_load.hpp"

namespace tidemark::bench {
namespace {

Task<BenchResult> run(EngineLoad& load) {
  load.start();
  const BenchResult result = co_await load.measure();
  co_await load.stop();
  co_return result;
}

}  // namespace

BenchResult run_engine_append(const AppendWorkload& options) {
  Engine engine({.driver = options.driver});
  const auto load = run_or_die(engine, EngineLoad::open(engine, options));
  return run_or_die(engine, run(*load));
}

}  // namespace tidemark::bench
