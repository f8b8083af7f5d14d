#pragma once

#include <atomic>
#include <concepts>
#include <coroutine>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <utility>
#include <variant>

#include <tidemark/engine/assert.hpp>
#include <tidemark/engine/executor.hpp>
#include <tidemark/engine/frame_pool.hpp>

namespace tidemark {

template <class T>
class Task;

namespace detail {

/// What a coroutine's first parameter (its object, for a member function) offers when the coroutine
/// is to run on that object's executor, whoever awaits it.
template <class T>
concept HasExecutor = requires(T& object) {
  { object.executor() } -> std::same_as<Executor&>;
};

/// The part of a task's promise that does not depend on its result. As a work item it resumes the
/// coroutine; a coroutine waits for one thing at a time, so one item is enough.
struct PromiseBase : WorkItem {
  Executor* executor = nullptr;  // Set when bound at creation, else taken from the awaiter.
  const std::stop_token* stop = nullptr;  // In a frame that outlives this one; null: never stops.
  WorkItem* continuation = nullptr;
  Executor* continuation_executor = nullptr;
  bool started = false;

  static void* operator new(std::size_t bytes) { return allocate_frame(bytes); }
  static void operator delete(void* frame, std::size_t bytes) noexcept { free_frame(frame, bytes); }

  std::suspend_always initial_suspend() const noexcept { return {}; }

  struct Continue {
    bool await_ready() const noexcept { return false; }
    template <class Promise>
    void await_suspend(std::coroutine_handle<Promise> handle) const noexcept {
      PromiseBase& self = handle.promise();
      if (self.continuation_executor == self.executor) {
        self.executor->run_next(*self.continuation);
      } else {
        // The awaiter may free this frame at once: nothing of it is touched after the post.
        self.continuation_executor->post(*self.continuation);
      }
    }
    void await_resume() const noexcept {}
  };
  Continue final_suspend() const noexcept { return {}; }

  /// Says what runs, on `where`, when the coroutine has finished. It is started after this, by
  /// queueing it on `executor`.
  void attach(WorkItem& whom, Executor& where, const std::stop_token* token) {
    TIDEMARK_ASSERT(!started, "a task is awaited once");
    started = true;
    continuation = &whom;
    continuation_executor = &where;
    stop = token;
    if (executor == nullptr) executor = &where;
  }
};

template <class T>
struct Promise : PromiseBase {
  std::variant<std::monostate, std::exception_ptr, T> result;

  template <class U>
  requires std::constructible_from<T, U>
  void return_value(U&& value) { result.template emplace<2>(std::forward<U>(value)); }
  void unhandled_exception() noexcept { result.template emplace<1>(std::current_exception()); }
  std::exception_ptr failure() const {
    return result.index() == 1 ? std::get<1>(result) : std::exception_ptr();
  }

  T take() {
    if (result.index() == 1) std::rethrow_exception(std::get<1>(std::move(result)));
    return std::get<2>(std::move(result));
  }
};

template <>
struct Promise<void> : PromiseBase {
  std::exception_ptr error;

  void return_void() const noexcept {}
  void unhandled_exception() noexcept { error = std::current_exception(); }
  std::exception_ptr failure() const { return error; }
  void take() {
    if (error) std::rethrow_exception(std::move(error));
  }
};

template <class T>
class TaskAwaiter;
struct TaskAccess;

}  // namespace detail

/// An asynchronous computation that gives a T or throws. Lazy: it runs once it is awaited.
/// Move-only; awaited once, as an rvalue: `co_await storage.get_upload(id)` or `co_await
/// std::move(task)`.
///
/// Where it runs: a coroutine whose object or first parameter has a member `Executor& executor()`
/// is bound to that executor; any other runs on its awaiter's. An awaiting task continues on its
/// own executor. A coroutine of a foreign type may await a bound task; it continues on the engine's
/// thread.
///
/// Stop: the awaiter's stop token holds for everything it awaits, see stop.hpp. A stopped operation
/// throws std::system_error with std::errc::operation_canceled.
///
/// Lifetime: once started, the frame stays until it has finished. A foreign awaiter whose frame is
/// destroyed earlier stops the task and blocks until it has drained, because what the task was
/// given views of dies with that frame. Destroying a running task otherwise aborts the process.
///
/// Thread safety: created and destroyed in any thread, used from one at a time.
template <class T = void>
class [[nodiscard]] Task {
 public:
  struct promise_type : detail::Promise<T> {
    promise_type() { this->run = &resume; }
    template <detail::HasExecutor Object, class... Others>
    explicit promise_type(Object& object, Others&...) : promise_type() {
      this->executor = &object.executor();
    }

    Task get_return_object() { return Task(Handle::from_promise(*this)); }

    static void resume(WorkItem& item) noexcept {
      Handle::from_promise(static_cast<promise_type&>(item)).resume();
    }
  };

  Task(Task&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Task& operator=(Task&& other) noexcept {
    Task(std::move(other)).swap(*this);
    return *this;
  }
  ~Task() {
    if (!handle_) return;
    TIDEMARK_ASSERT(!handle_.promise().started || handle_.done(), "a running task was destroyed");
    handle_.destroy();
  }

  void swap(Task& other) noexcept { std::swap(handle_, other.handle_); }

  auto operator co_await() && { return detail::TaskAwaiter<T>(std::move(*this)); }

 private:
  using Handle = std::coroutine_handle<promise_type>;
  friend struct detail::TaskAccess;

  explicit Task(Handle handle) : handle_(handle) {}

  Handle handle_;
};

namespace detail {

/// For what starts tasks that no coroutine of ours awaits.
struct TaskAccess {
  template <class T>
  static auto& promise(Task<T>& task) {
    TIDEMARK_ASSERT(task.handle_, "the task was moved from");
    return task.handle_.promise();
  }
};

/// Waits for a bound task in a coroutine of another library. The stop source and the hand-over
/// between the two threads exist only here, so our own awaits do not pay for them.
struct ForeignWait : WorkItem {
  enum class State { running, finished, abandoned, drained };

  explicit ForeignWait(std::coroutine_handle<> awaiting) : awaiter(awaiting) { run = &finish; }

  static void finish(WorkItem& item) noexcept {
    auto& self = static_cast<ForeignWait&>(item);
    Executor* const executor = self.where;
    const std::shared_ptr<ForeignWait> keep = std::move(self.keep);
    if (self.state.exchange(State::finished) == State::running) {
      self.awaiter.resume();
    } else {
      self.state.store(State::drained);
      self.state.notify_all();
    }
    executor->root_finished();
  }

  /// Called when the awaiting frame goes away before it was resumed.
  void abandon() {
    if (state.exchange(State::abandoned) != State::running) return;
    TIDEMARK_ASSERT(Executor::current() == nullptr,
                    "an awaiting frame was destroyed on an engine's thread");
    source.request_stop();
    for (State now = state.load(); now != State::drained; now = state.load()) state.wait(now);
  }

  std::coroutine_handle<> awaiter;
  Executor* where = nullptr;
  std::stop_source source;
  std::stop_token token = source.get_token();
  std::optional<std::stop_callback<std::function<void()>>> engine_stop;
  std::atomic<State> state{State::running};
  std::shared_ptr<ForeignWait> keep;  // Itself, until it has run.
};

template <class T>
class [[nodiscard]] TaskAwaiter {
 public:
  explicit TaskAwaiter(Task<T> task) : task_(std::move(task)) {}
  TaskAwaiter(Task<T> task, const std::stop_token* token)
      : task_(std::move(task)), token_(token), own_token_(true) {}
  TaskAwaiter(TaskAwaiter&&) = default;
  ~TaskAwaiter() {
    if (foreign_) foreign_->abandon();
  }

  bool await_ready() const noexcept { return false; }

  template <class Awaiting>
  void await_suspend(std::coroutine_handle<Awaiting> awaiter) {
    auto& promise = TaskAccess::promise(task_);
    if constexpr (std::derived_from<Awaiting, PromiseBase>) {
      PromiseBase& awaiting = awaiter.promise();
      promise.attach(awaiting, *awaiting.executor, own_token_ ? token_ : awaiting.stop);
      if (promise.executor == awaiting.executor) {
        promise.executor->run_next(promise);
      } else {
        promise.executor->post(promise);
      }
    } else {
      start_foreign(promise, awaiter);
    }
  }

  T await_resume() {
    foreign_.reset();
    return TaskAccess::promise(task_).take();
  }

 private:
  void start_foreign(PromiseBase& promise, std::coroutine_handle<> awaiter) {
    TIDEMARK_ASSERT(promise.executor != nullptr, "a foreign coroutine awaits only bound tasks");
    Executor& executor = *promise.executor;
    foreign_ = std::make_shared<ForeignWait>(awaiter);
    foreign_->keep = foreign_;
    foreign_->where = &executor;
    foreign_->engine_stop.emplace(executor.engine_stop(),
                                  [wait = foreign_.get()] { wait->source.request_stop(); });
    executor.root_started();
    promise.attach(*foreign_, executor, &foreign_->token);
    executor.post(promise);  // Last: the task may finish and free this awaiter at once.
  }

  Task<T> task_;
  const std::stop_token* token_ = nullptr;
  bool own_token_ = false;
  std::shared_ptr<ForeignWait> foreign_;
};

/// Suspends nothing: reads the promise of the task that awaits it.
template <class Read>
struct ReadPromise {
  Read read;
  const PromiseBase* promise = nullptr;
  bool await_ready() const noexcept { return false; }
  template <std::derived_from<PromiseBase> Awaiting>
  bool await_suspend(std::coroutine_handle<Awaiting> awaiter) noexcept {
    promise = &awaiter.promise();
    return false;
  }
  auto await_resume() const noexcept { return read(*promise); }
};

}  // namespace detail

/// `co_await current_executor()`: a pointer to the executor that runs this task.
inline auto current_executor() {
  return detail::ReadPromise{[](const detail::PromiseBase& promise) { return promise.executor; }};
}

/// `co_await current_stop_token()`: what asks this task to end early; without one it never fires.
inline auto current_stop_token() {
  return detail::ReadPromise{[](const detail::PromiseBase& promise) {
    return promise.stop == nullptr ? std::stop_token() : *promise.stop;
  }};
}

}  // namespace tidemark
