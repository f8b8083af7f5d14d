#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <memory>
#include <stop_token>
#include <vector>

#include <tidemark/engine/executor.hpp>

namespace tidemark {

/// Every bound of an engine. The defaults suit a server on a machine of any size.
struct EngineOptions {
  DriverKind driver = DriverKind::automatic;
  unsigned executors = 1;        // 1 to 256 threads, each with a driver; a storage is on one.
  unsigned queue_entries = 256;  // 8 to 4096 operations in the kernel at once, for each executor.
  unsigned worker_threads = 16;  // 1 to 64 threads for blocking calls, for each executor.
  std::size_t bytes_in_flight = std::size_t{64} << 20;  // At least 4 MiB of I/O buffers.
  Environment* environment = &Environment::real();      // Outlives the engine.
};

/// Owns the executors. One engine serves a whole process; a process that forks uses it only in the
/// parent.
///
/// Errors: the constructor throws std::system_error when an option is out of its range or the
/// kernel refuses the driver that was asked for; `automatic` steps down instead, and says so in the
/// log. Thread safety: all members from any thread, but `close` and the destructor not from an
/// executor's. Lifetime: outlives every storage and object that was made on it.
class Engine {
 public:
  explicit Engine(const EngineOptions& options = {});
  /// Closes at once: asks what still runs to stop, and drains it.
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  /// Blocks until everything that was started has finished; what still runs after `grace`, which is
  /// real time, is asked to stop. Nothing is lost: operations in the kernel are waited for in any
  /// case.
  void close(std::chrono::nanoseconds grace);

  /// An executor for something new, each in its turn.
  Executor& executor();
  const EngineOptions& options() const { return options_; }
  Environment& environment() const { return *options_.environment; }
  DriverKind driver() const { return executors_.front()->driver().kind(); }

 private:
  const EngineOptions options_;
  std::stop_source stop_;
  detail::RootCount roots_;  // Outlives the executors' threads.
  std::vector<std::unique_ptr<Executor>> executors_;
  std::atomic<std::size_t> turn_{0};
};

}  // namespace tidemark
