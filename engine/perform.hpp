#pragma once

#include <cerrno>
#include <coroutine>
#include <system_error>

#include <tidemark/engine/stop_relay.hpp>
#include <tidemark/engine/task.hpp>

namespace tidemark {

/// What a stopped operation throws.
inline std::system_error operation_canceled() {
  return std::system_error(std::make_error_code(std::errc::operation_canceled));
}

/// True for what a stopped operation throws.
inline bool is_canceled(const std::system_error& error) {
  return error.code() == std::errc::operation_canceled;
}

namespace detail {

/// Awaits one operation of the driver: `co_await perform(operation)` gives its result, bytes moved
/// or -errno. A call that a signal interrupted is submitted again. When the task is asked to stop,
/// the operation is cancelled and gives -ECANCELED if it had no effect, else what it did: bytes
/// that moved are never reported as cancelled. The frame stays suspended until the operation and
/// the request to cancel it are both gone from the kernel.
class [[nodiscard]] OperationAwaiter : private Operation {
 public:
  OperationAwaiter(const Operation& operation, bool heeds_stop)
      : Operation(operation), heeds_stop_(heeds_stop) {}
  OperationAwaiter(const OperationAwaiter&) = delete;
  OperationAwaiter& operator=(const OperationAwaiter&) = delete;

  bool await_ready() const noexcept { return false; }

  template <std::derived_from<PromiseBase> Awaiting>
  bool await_suspend(std::coroutine_handle<Awaiting> awaiter) {
    promise_ = &awaiter.promise();
    return suspend();
  }

  std::int64_t await_resume() const noexcept { return result; }

 private:
  /// Returns true when the operation is under way.
  bool suspend();
  /// Submits until the result is not an interruption. Returns true when the operation is finished.
  bool submit();
  static void on_complete(Operation& operation) noexcept;
  static void on_stop(void* awaiter) noexcept;

  const bool heeds_stop_;
  PromiseBase* promise_ = nullptr;
  StopRelay relay_;
};

inline OperationAwaiter perform(const Operation& operation) {
  return OperationAwaiter(operation, true);
}

/// The same for what must not be left half done: a stop is not heeded.
inline OperationAwaiter perform_to_end(const Operation& operation) {
  return OperationAwaiter(operation, false);
}

}  // namespace detail
}  // namespace tidemark
