// The workload `waiters`: what tasks that wait for the locks of another process cost the appends
// beside them.

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <string>
#include <vector>

#include <tidemark/engine/sleep_for.hpp>

#include "engine_load.hpp"
#include "lock_holder.hpp"

namespace tidemark::bench {
namespace {

// Until the waiters have opened their files, and ask for their locks at the longest pauses.
constexpr auto k_settle = std::chrono::seconds(1);

UploadId locked_id(unsigned number) {
  return "locked-" + std::to_string(number);
}

/// Appends to a locked upload. The wait has no end but a stop.
Task<void> wait_for_lock(EngineLoad& load, UploadId id, unsigned& stopped) {
  const AppendResult result = co_await load.storage().append(id, 0, load.chunk().bytes());
  if (result.status != AppendStatus::canceled) die("an upload was not locked");
  ++stopped;
}

Task<double> measure_alone(EngineLoad& load) {
  co_await sleep_for(k_settle);
  const BenchResult result = co_await load.measure();
  co_return result.ops_per_s;
}

Task<double> measure_with_waiters(EngineLoad& load, unsigned count) {
  unsigned stopped = 0;
  Scope waiters(load.executor());
  for (unsigned number = 0; number < count; ++number) {
    waiters.spawn(wait_for_lock(load, locked_id(number), stopped));
  }
  const double ops_per_s = co_await measure_alone(load);
  const bool all_waited = stopped == 0;
  waiters.request_stop();
  co_await waiters.join();
  if (!all_waited || stopped != count) die("not all waiters waited");
  co_return ops_per_s;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

Task<WaitersResult> run(EngineLoad& load, const WaitersWorkload& options) {
  std::vector<double> alone;
  std::vector<double> with_waiters;
  std::vector<double> ratios;
  load.start();
  double before = co_await measure_alone(load);
  for (unsigned slice = 0; slice < options.slices; ++slice) {
    const double waited = co_await measure_with_waiters(load, options.waiters);
    const double after = co_await measure_alone(load);
    alone.push_back(after);
    with_waiters.push_back(waited);
    ratios.push_back(2 * waited / (before + after));
    before = after;
  }
  co_await load.stop();
  co_return WaitersResult{median(alone), median(with_waiters), median(ratios)};
}

Task<void> create_locked(EngineLoad& load, unsigned count) {
  for (unsigned number = 0; number < count; ++number) {
    co_await load.create(locked_id(number), load.chunk().bytes().size());
  }
}

}  // namespace

WaitersResult run_waiters(const WaitersWorkload& options) {
  std::vector<std::filesystem::path> files;
  for (unsigned number = 0; number < options.waiters; ++number) {
    files.push_back(options.appends.data_dir / "uploads" / locked_id(number).view());
  }
  LockHolder holder(files);
  Engine engine({.driver = options.appends.driver});
  const auto load = run_or_die(engine, EngineLoad::open(engine, options.appends));
  run_or_die(engine, create_locked(*load, options.waiters));
  holder.lock();
  return run_or_die(engine, run(*load, options));
}

}  // namespace tidemark::bench
