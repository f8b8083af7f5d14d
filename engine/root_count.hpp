#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <optional>

#include <tidemark/engine/environment.hpp>

namespace tidemark::detail {

/// Counts an engine's roots: running tasks that no other task awaits. One count for all executors,
/// because a root may start another elsewhere just before it finishes.
///
/// Thread safety: all members from any thread. Lifetime: outlives the threads that call `finished`.
class RootCount {
 public:
  void started() { running_.fetch_add(1, std::memory_order_relaxed); }

  void finished() {
    if (running_.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
    { std::lock_guard lock(mutex_); }  // A waiter has either seen zero or is in its wait.
    none_.notify_all();
  }

  /// Blocks until no root runs, or until `deadline` on the steady clock; true when none does.
  bool wait_for_none(std::optional<TimePoint> deadline) {
    std::unique_lock lock(mutex_);
    const auto none = [this] { return running_.load(std::memory_order_acquire) == 0; };
    if (deadline) return none_.wait_until(lock, *deadline, none);
    none_.wait(lock, none);
    return true;
  }

 private:
  std::atomic<std::size_t> running_{0};
  std::mutex mutex_;
  std::condition_variable none_;
};

}  // namespace tidemark::detail
