#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <semaphore>
#include <system_error>
#include <utility>

#include <tidemark/engine/root.hpp>

#include "fault_driver.hpp"

namespace tidemark::test {

/// A task that runs while the test goes on in its own thread. At the end faults are taken away,
/// what is held is let go, and the task is waited for, so that a failed assertion leaves nothing
/// behind.
///
///     RunningTask append(environment, executor, storage.append("a", 0, bytes));
///     environment.wait_for_held();
///     ...
///     CHECK(append.get() == AppendResult{...});
template <class T>
class RunningTask {
 public:
  RunningTask(FaultEnvironment& environment, Executor& executor, Task<T> task)
      : environment_(environment),
        root_(detail::Root<T>::start(
            executor, std::move(task),
            [this](Task<T>& finished) {
              finished_.emplace(std::move(finished));
              is_done_ = true;
              environment_.notice();
              done_.release();
            },
            executor.engine_stop())) {}
  ~RunningTask() {
    if (!is_done_) {
      environment_.on_submit(nullptr);
      environment_.release();
    }
    wait();
  }
  RunningTask(const RunningTask&) = delete;
  RunningTask& operator=(const RunningTask&) = delete;

  bool is_done() const { return is_done_; }
  /// Blocks until `count` operations or results are held: true; or the task is done: false.
  bool wait_until_held(std::size_t count = 1) {
    return environment_.wait_for_held(count, is_done_);
  }
  void request_stop() { root_->source().request_stop(); }

  /// Once: the result, or the error is thrown.
  T get() {
    wait();
    return detail::TaskAccess::promise(*finished_).take();
  }
  /// Once: the code of the system_error that ended the task; none when it succeeded.
  std::error_code error() {
    try {
      static_cast<void>(get());
    } catch (const std::system_error& error) {
      return error.code();
    }
    return {};
  }

 private:
  void wait() {
    if (std::exchange(waited_, true)) return;
    done_.acquire();
  }

  FaultEnvironment& environment_;
  std::binary_semaphore done_{0};
  std::atomic<bool> is_done_{false};
  std::optional<Task<T>> finished_;
  bool waited_ = false;
  std::shared_ptr<detail::Root<T>> root_;  // Last: it uses the members above.
};

}  // namespace tidemark::test
