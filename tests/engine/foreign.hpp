#pragma once

#include <coroutine>
#include <exception>
#include <memory>
#include <semaphore>
#include <utility>

namespace tidemark::test {

/// A coroutine type that knows nothing of tidemark, as other libraries have. Eager; its owner may
/// destroy the frame while it is suspended.
class Foreign {
  struct Shared {
    std::binary_semaphore done{0};
    std::exception_ptr error;
  };

 public:
  struct promise_type {
    struct Finish {
      bool await_ready() const noexcept { return false; }
      void await_suspend(std::coroutine_handle<promise_type> handle) const noexcept {
        const std::shared_ptr<Shared> kept = handle.promise().shared;
        kept->done.release();  // The frame may be destroyed from now on.
      }
      void await_resume() const noexcept {}
    };

    std::shared_ptr<Shared> shared = std::make_shared<Shared>();

    Foreign get_return_object() { return Foreign(Handle::from_promise(*this)); }
    std::suspend_never initial_suspend() const noexcept { return {}; }
    Finish final_suspend() const noexcept { return {}; }
    void return_void() const noexcept {}
    void unhandled_exception() noexcept { shared->error = std::current_exception(); }
  };

  Foreign(Foreign&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  ~Foreign() { destroy(); }

  /// Blocks until it has finished; throws what it threw.
  void wait() {
    const std::shared_ptr<Shared> shared = handle_.promise().shared;
    shared->done.acquire();
    if (shared->error) std::rethrow_exception(shared->error);
  }

  void destroy() {
    if (const Handle handle = std::exchange(handle_, nullptr)) handle.destroy();
  }

 private:
  using Handle = std::coroutine_handle<promise_type>;
  explicit Foreign(Handle handle) : handle_(handle) {}

  Handle handle_;
};

}  // namespace tidemark::test
