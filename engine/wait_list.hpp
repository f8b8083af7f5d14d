#pragma once

#include <coroutine>

#include <tidemark/engine/assert.hpp>
#include <tidemark/engine/stop_relay.hpp>

namespace tidemark {

/// Tasks that wait for something, in the order in which they came. What a mutex, a bounded pool or
/// a change of state is built on.
///
/// Thread safety: used by the tasks of one executor only. Lifetime: outlives its waiters.
/// No allocation: a waiter is a node in the frame of the task that waits.
class WaitList {
 public:
  class [[nodiscard]] Awaiter {
   public:
    Awaiter(WaitList& list, bool first, bool heeds_stop)
        : list_(list), goes_first_(first), heeds_stop_(heeds_stop) {}
    Awaiter(const Awaiter&) = delete;
    Awaiter& operator=(const Awaiter&) = delete;

    bool await_ready() const noexcept { return false; }

    template <std::derived_from<detail::PromiseBase> Awaiting>
    bool await_suspend(std::coroutine_handle<Awaiting> awaiter) {
      detail::PromiseBase& promise = awaiter.promise();
      if (heeds_stop_ && promise.stop != nullptr && promise.stop->stop_requested()) return false;
      TIDEMARK_ASSERT(
          list_.executor_ == nullptr || list_.empty() || list_.executor_ == promise.executor,
          "a wait list serves the tasks of one executor");
      list_.executor_ = promise.executor;
      list_.push(*this);
      relay_.arm(promise, this, &on_stop, heeds_stop_);
      return true;
    }

    /// True when woken, false when stopped.
    bool await_resume() const noexcept { return woken_; }

   private:
    friend class WaitList;

    static void on_stop(void* context) noexcept {
      auto& self = *static_cast<Awaiter*>(context);
      if (self.woken_) return;  // The wake came first and will continue the task.
      self.list_.remove(self);
      self.relay_.finish();
    }

    WaitList& list_;
    const bool goes_first_;
    const bool heeds_stop_;
    Awaiter* previous_ = nullptr;
    Awaiter* next_ = nullptr;
    bool woken_ = false;
    detail::StopRelay relay_;
  };

  WaitList() = default;
  WaitList(const WaitList&) = delete;
  WaitList& operator=(const WaitList&) = delete;
  ~WaitList() { TIDEMARK_ASSERT(empty(), "a wait list outlives its waiters"); }

  bool empty() const { return first_ == nullptr; }

  /// `co_await list.wait()` gives true once woken, false when the task is asked to stop first.
  Awaiter wait() { return Awaiter(*this, false, true); }
  /// The same, before all who wait now.
  Awaiter wait_first() { return Awaiter(*this, true, true); }
  /// Waits until woken; a stop is not heeded.
  Awaiter wait_to_end() { return Awaiter(*this, false, false); }

  /// Lets the first waiter continue in a later turn. False when there is none.
  bool wake_one() {
    if (empty()) return false;
    TIDEMARK_ASSERT(Executor::current() == executor_, "a wait list is used on one executor");
    Awaiter& first = *first_;
    remove(first);
    first.woken_ = true;
    first.relay_.finish();
    return true;
  }

  void wake_all() {
    while (wake_one()) {
    }
  }

 private:
  void push(Awaiter& awaiter) {
    awaiter.previous_ = awaiter.goes_first_ ? nullptr : last_;
    awaiter.next_ = awaiter.goes_first_ ? first_ : nullptr;
    (awaiter.previous_ == nullptr ? first_ : awaiter.previous_->next_) = &awaiter;
    (awaiter.next_ == nullptr ? last_ : awaiter.next_->previous_) = &awaiter;
  }

  void remove(Awaiter& awaiter) {
    (awaiter.previous_ == nullptr ? first_ : awaiter.previous_->next_) = awaiter.next_;
    (awaiter.next_ == nullptr ? last_ : awaiter.next_->previous_) = awaiter.previous_;
    awaiter.previous_ = awaiter.next_ = nullptr;
  }

  Executor* executor_ = nullptr;
  Awaiter* first_ = nullptr;
  Awaiter* last_ = nullptr;
};

}  // namespace tidemark
