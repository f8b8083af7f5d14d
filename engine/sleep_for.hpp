#pragma once

#include <chrono>
#include <coroutine>

#include <tidemark/engine/perform.hpp>
#include <tidemark/engine/stop_relay.hpp>

namespace tidemark {
namespace detail {

class [[nodiscard]] SleepAwaiter : private Timer {
 public:
  explicit SleepAwaiter(std::chrono::nanoseconds duration) : duration_(duration) {}
  SleepAwaiter(const SleepAwaiter&) = delete;
  SleepAwaiter& operator=(const SleepAwaiter&) = delete;

  bool await_ready() const noexcept { return false; }

  template <std::derived_from<PromiseBase> Awaiting>
  bool await_suspend(std::coroutine_handle<Awaiting> awaiter) {
    PromiseBase& promise = awaiter.promise();
    executor_ = promise.executor;
    if (promise.stop != nullptr && promise.stop->stop_requested()) {
      stopped_ = true;
      return false;
    }
    if (duration_ <= std::chrono::nanoseconds::zero()) {
      executor_->post_here(promise);
      return true;
    }
    Timer::run = [](WorkItem& item) noexcept { static_cast<SleepAwaiter&>(item).relay_.finish(); };
    executor_->add_timer(*this, later(executor_->environment().now(), duration_));
    relay_.arm(promise, this, [](void* context) noexcept {
      auto& self = *static_cast<SleepAwaiter*>(context);
      self.executor_->remove_timer(self);
      self.stopped_ = true;
      self.relay_.finish();
    });
    return true;
  }

  void await_resume() const {
    if (stopped_) throw operation_canceled();
  }

 private:
  const std::chrono::nanoseconds duration_;
  Executor* executor_ = nullptr;
  bool stopped_ = false;
  StopRelay relay_;
};

}  // namespace detail

/// `co_await sleep_for(duration)` continues after that long on the engine's clock; a stop ends it
/// early with std::errc::operation_canceled. Zero or less only lets others run first.
inline detail::SleepAwaiter sleep_for(std::chrono::nanoseconds duration) {
  return detail::SleepAwaiter(duration);
}

/// `co_await schedule()` continues after everything that is ready now.
inline detail::SleepAwaiter schedule() {
  return sleep_for(std::chrono::nanoseconds::zero());
}

}  // namespace tidemark
