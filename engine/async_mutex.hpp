#pragma once

#include <utility>

#include <tidemark/engine/perform.hpp>
#include <tidemark/engine/wait_list.hpp>

namespace tidemark {

/// A mutex that is held across awaits. First come, first served: unlocking hands the mutex to the
/// longest waiter, which continues in a later turn, never inside the unlock.
///
/// Thread safety: used by the tasks of one executor only. Lifetime: outlives its guards.
class AsyncMutex {
 public:
  /// Ownership of the mutex; unlocks when destroyed.
  class [[nodiscard]] Guard {
   public:
    Guard() = default;
    Guard(Guard&& other) noexcept : mutex_(std::exchange(other.mutex_, nullptr)) {}
    Guard& operator=(Guard&& other) noexcept {
      std::swap(mutex_, other.mutex_);
      return *this;
    }
    ~Guard() { unlock(); }

    bool owns_lock() const { return mutex_ != nullptr; }
    void unlock() {
      if (AsyncMutex* mutex = std::exchange(mutex_, nullptr)) mutex->unlock();
    }

   private:
    friend class AsyncMutex;
    explicit Guard(AsyncMutex& mutex) : mutex_(&mutex) {}
    AsyncMutex* mutex_ = nullptr;
  };

  AsyncMutex() = default;
  AsyncMutex(const AsyncMutex&) = delete;
  AsyncMutex& operator=(const AsyncMutex&) = delete;
  ~AsyncMutex() { TIDEMARK_ASSERT(!locked_, "a mutex outlives its guards"); }

  /// Waits for the mutex. Throws std::errc::operation_canceled when asked to stop before.
  Task<Guard> lock() {
    if (!locked_) {
      locked_ = true;
    } else {
      const bool handed_over = co_await waiters_.wait();
      if (!handed_over) throw operation_canceled();
    }
    co_return Guard(*this);
  }

  /// The same, before all who wait now.
  Task<Guard> lock_first() {
    if (!std::exchange(locked_, true)) co_return Guard(*this);
    const bool handed_over = co_await waiters_.wait_first();
    if (!handed_over) throw operation_canceled();
    co_return Guard(*this);
  }

  /// Takes the mutex if it is free; else the guard owns nothing.
  Guard try_lock() { return std::exchange(locked_, true) ? Guard() : Guard(*this); }

 private:
  void unlock() {
    TIDEMARK_ASSERT(locked_, "only the owner unlocks");
    if (!waiters_.wake_one()) locked_ = false;
  }

  bool locked_ = false;
  WaitList waiters_;
};

}  // namespace tidemark
