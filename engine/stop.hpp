#pragma once

#include <chrono>
#include <stop_token>

#include <tidemark/engine/perform.hpp>
#include <tidemark/engine/task.hpp>

namespace tidemark {
namespace detail {

/// Forwards one stop request to a source that others may fire as well.
struct ForwardStop {
  std::stop_source* source;
  void operator()() const noexcept { source->request_stop(); }
};
using StopForwarder = std::stop_callback<ForwardStop>;

/// Fires a stop source at a time, unless it is destroyed before. For the executor's own thread.
class StopTimer : private Timer {
 public:
  StopTimer(Executor& executor, std::stop_source& source, std::chrono::nanoseconds after)
      : executor_(executor), source_(source) {
    Timer::run = [](WorkItem& item) noexcept {
      auto& self = static_cast<StopTimer&>(item);
      self.fired_ = true;
      self.source_.request_stop();
    };
    executor_.add_timer(*this, later(executor_.environment().now(), after));
  }
  ~StopTimer() { executor_.remove_timer(*this); }
  StopTimer(const StopTimer&) = delete;
  StopTimer& operator=(const StopTimer&) = delete;

  bool fired() const { return fired_; }

 private:
  Executor& executor_;
  std::stop_source& source_;
  bool fired_ = false;
};

/// Awaits `task` with `token` in place of the awaiter's; null: it cannot be stopped.
template <class T>
TaskAwaiter<T> await_with(Task<T> task, const std::stop_token* token) {
  return TaskAwaiter<T>(std::move(task), token);
}

}  // namespace detail

/// Runs `task` so that a stop requested on `token`, or on what the awaiter listens to, ends it.
template <class T>
Task<T> with_stop(Task<T> task, std::stop_token token) {
  const std::stop_token outer = co_await current_stop_token();
  std::stop_source source;
  const std::stop_token both = source.get_token();
  const detail::StopForwarder from_outer(outer, detail::ForwardStop{&source});
  const detail::StopForwarder from_token(token, detail::ForwardStop{&source});
  co_return co_await detail::await_with(std::move(task), &both);
}

/// Runs `task` to its end whatever the awaiter is asked: for steps that must not be left half done.
template <class T>
Task<T> without_stop(Task<T> task) {
  co_return co_await detail::await_with(std::move(task), nullptr);
}

/// Runs `task` and asks it to stop after `duration`. Throws std::system_error with
/// std::errc::timed_out when that ended it; a task that finished all the same gives its result.
template <class T>
Task<T> with_timeout(Task<T> task, std::chrono::nanoseconds duration) {
  Executor* const executor = co_await current_executor();
  const std::stop_token outer = co_await current_stop_token();
  std::stop_source source;
  const std::stop_token both = source.get_token();
  const detail::StopForwarder from_outer(outer, detail::ForwardStop{&source});
  const detail::StopTimer timer(*executor, source, duration);
  try {
    co_return co_await detail::await_with(std::move(task), &both);
  } catch (const std::system_error& error) {
    if (!timer.fired() || !is_canceled(error)) throw;
    throw std::system_error(std::make_error_code(std::errc::timed_out));
  }
}

}  // namespace tidemark
