#include <stdexcept>
#include <string>
#include <system_error>

#include <tidemark/engine/assert.hpp>
#include <tidemark/engine/engine.hpp>

namespace tidemark {
namespace {

void require(bool condition, const char* what) {
  if (condition) return;
  throw std::system_error(std::make_error_code(std::errc::invalid_argument),
                          std::string("EngineOptions: ") + what);
}

const EngineOptions& checked(const EngineOptions& options) {
  require(options.executors >= 1 && options.executors <= 256, "executors: 1 to 256");
  require(options.queue_entries >= 8 && options.queue_entries <= 4096, "queue_entries: 8 to 4096");
  require(options.worker_threads >= 1 && options.worker_threads <= 64, "worker_threads: 1 to 64");
  require(options.bytes_in_flight >= std::size_t{4} << 20, "bytes_in_flight: at least 4 MiB");
  require(options.environment != nullptr, "environment: not null");
  return options;
}

}  // namespace

Engine::Engine(const EngineOptions& options) : options_(checked(options)) {
  DriverOptions driver{options.driver, options.queue_entries, options.worker_threads};
  for (unsigned i = 0; i < options.executors; ++i) {
    executors_.push_back(std::make_unique<Executor>(
        *options.environment, driver, "tidemark-" + std::to_string(i), roots_, stop_.get_token()));
    driver.kind = executors_.front()->driver().kind();  // Probed, and logged, once.
  }
}

Engine::~Engine() {
  close(std::chrono::nanoseconds::zero());
}

void Engine::close(std::chrono::nanoseconds grace) {
  TIDEMARK_ASSERT(Executor::current() == nullptr, "an engine is not closed by its own tasks");
  if (roots_.wait_for_none(later(std::chrono::steady_clock::now(), grace))) return;
  stop_.request_stop();
  roots_.wait_for_none(std::nullopt);
}

Executor& Engine::executor() {
  return *executors_[turn_.fetch_add(1, std::memory_order_relaxed) % executors_.size()];
}

}  // namespace tidemark
