#pragma once

#include <atomic>
#include <cstddef>
#include <exception>
#include <memory>
#include <stop_token>
#include <utility>

#include <tidemark/engine/root.hpp>
#include <tidemark/engine/wait_list.hpp>

namespace tidemark {

/// Tasks that run beside their starter and end before the scope does.
///
///     Scope scope(executor);
///     scope.spawn(work());
///     co_await scope.join();
///
/// The first task that fails asks the others to stop, and `join` throws its error.
/// Thread safety: `prepare`, `spawn` and `request_stop` from any thread, `join` on the scope's
/// executor, where the tasks run as well. Lifetime: join before the end; a scope that ends with
/// running tasks aborts.
class Scope {
 public:
  explicit Scope(Executor& executor);
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;
  ~Scope();

  Executor& executor() { return executor_; }

  void spawn(Task<void> task) { spawn(prepare(std::move(task))); }
  /// A task with all the memory that it takes to spawn it, for what must not fail later.
  using Prepared = std::shared_ptr<detail::Root<void>>;
  Prepared prepare(Task<void> task);
  void spawn(const Prepared& task) noexcept;
  void request_stop() { source_.request_stop(); }
  /// Waits until every task has finished. Asked to stop, it passes that on and still waits. All the
  /// memory that this takes is in the Task.
  Task<void> join();

 private:
  void finished(Task<void>& task);

  Executor& executor_;
  std::stop_source source_;
  const detail::StopForwarder from_engine_;
  std::atomic<std::size_t> running_{0};
  std::exception_ptr error_;  // On the executor's thread.
  WaitList idle_;
};

}  // namespace tidemark
