#pragma once

#include <concepts>
#include <coroutine>
#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include <tidemark/engine/assert.hpp>
#include <tidemark/engine/environment.hpp>
#include <tidemark/engine/task.hpp>

namespace tidemark::detail {

/// A thread for one task's steps that block: `co_await thread.run(step)` calls `step()` there,
/// once, and throws what it threw. A stop is not heeded.
///
/// Thread safety: one task at a time. Lifetime: outlives its steps; the destructor waits only for
/// the thread to return from the last one, which has been answered.
class StepThread {
 public:
  StepThread(Environment& environment, const std::string& name)
      : thread_(environment.start_thread(name, [this] { return turn(); })) {}

  template <std::invocable Step>
  class [[nodiscard]] Awaiter;
  /// `step` lives until then.
  template <std::invocable Step>
  Awaiter<Step> run(Step& step) {
    return Awaiter<Step>(*this, step);
  }

 private:
  struct Request {
    virtual void execute() = 0;
    PromiseBase* awaiting = nullptr;

   protected:
    ~Request() = default;
  };

  void submit(Request& request) {
    {
      std::lock_guard lock(mutex_);
      TIDEMARK_ASSERT(request_ == nullptr, "one task's steps come one by one");
      request_ = &request;
    }
    thread_->wake();
  }

  std::chrono::nanoseconds turn() {
    Request* request = nullptr;
    {
      std::lock_guard lock(mutex_);
      request = std::exchange(request_, nullptr);
    }
    if (request != nullptr) {
      request->execute();
      request->awaiting->executor->post(*request->awaiting);
    }
    return k_until_woken;
  }

  std::mutex mutex_;
  Request* request_ = nullptr;
  std::unique_ptr<TurnThread> thread_;  // Last: its turns use the members above.
};

template <std::invocable Step>
class StepThread::Awaiter final : private Request {
 public:
  Awaiter(StepThread& thread, Step& step) : thread_(thread), step_(step) {}
  Awaiter(const Awaiter&) = delete;
  Awaiter& operator=(const Awaiter&) = delete;

  bool await_ready() const noexcept { return false; }
  template <std::derived_from<PromiseBase> Awaiting>
  void await_suspend(std::coroutine_handle<Awaiting> handle) {
    awaiting = &handle.promise();
    thread_.submit(*this);  // Last: it may be answered at once.
  }
  void await_resume() {
    if (error_) std::rethrow_exception(error_);
  }

 private:
  void execute() override {
    try {
      step_();
    } catch (...) {
      error_ = std::current_exception();
    }
  }

  StepThread& thread_;
  Step& step_;
  std::exception_ptr error_;
};

}  // namespace tidemark::detail
