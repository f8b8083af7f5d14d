#pragma once

#include <concepts>
#include <coroutine>
#include <exception>
#include <mutex>
#include <optional>
#include <type_traits>
#include <variant>

#include <boost/intrusive/list.hpp>

#include <tidemark/engine/task.hpp>
#include <tidemark/storage/detail/upload_rows.hpp>

namespace tidemark::detail {

/// Work on the database that a task waits for; it lives in the task's frame.
class DatabaseRequest : public boost::intrusive::list_base_hook<> {
 public:
  /// On the database's thread. May be called again when its transaction was rolled back.
  virtual void execute(UploadRows& rows) = 0;

  /// Lets the waiting task continue; nothing of the request is touched after it.
  void answer() { awaiter->executor->post(*awaiter); }

  std::exception_ptr error;  // What the awaiting task throws in place of a result.
  bool frees_space = false;  // Worth another try when the disk is full: it deletes.
  bool is_busy = false;      // A read met a locked database.
  TimePoint queued_at;
  PromiseBase* awaiter = nullptr;

 protected:
  ~DatabaseRequest() = default;
};

/// In the order of their coming; it owns none, and allocates nothing.
using RequestList = boost::intrusive::list<DatabaseRequest>;

/// Requests on their way to a database thread. Thread-safe.
class RequestQueue {
 public:
  /// True when the queue was empty: the thread has to be woken.
  bool push(DatabaseRequest& request) {
    std::lock_guard lock(mutex_);
    requests_.push_back(request);
    return requests_.size() == 1;
  }

  /// Moves them to the end of `to`.
  void take_all(RequestList& to) {
    std::lock_guard lock(mutex_);
    to.splice(to.end(), requests_);
  }

  std::size_t size() const {
    std::lock_guard lock(mutex_);
    return requests_.size();
  }

 private:
  mutable std::mutex mutex_;
  RequestList requests_;
};

/// Awaits `work(rows)` on a database thread. It is queued at once and runs to its end: a stop of
/// the awaiting task is not heeded, since a commit cannot be taken back.
template <class Thread, class Work>
class [[nodiscard]] RequestAwaiter final : private DatabaseRequest {
 public:
  using Result = std::invoke_result_t<Work&, UploadRows&>;

  RequestAwaiter(Thread& thread, Work& work, bool frees) : thread_(thread), work_(work) {
    frees_space = frees;
  }
  RequestAwaiter(const RequestAwaiter&) = delete;
  RequestAwaiter& operator=(const RequestAwaiter&) = delete;

  bool await_ready() const noexcept { return false; }

  template <std::derived_from<PromiseBase> Awaiting>
  void await_suspend(std::coroutine_handle<Awaiting> handle) {
    awaiter = &handle.promise();
    queued_at = awaiter->executor->environment().now();
    thread_.enqueue(*this);  // Last: it may be answered at once.
  }

  Result await_resume() {
    if (error) std::rethrow_exception(error);
    if constexpr (!std::is_void_v<Result>) return std::move(*result_);
  }

 private:
  using Stored = std::conditional_t<std::is_void_v<Result>, std::monostate, Result>;

  void execute(UploadRows& rows) override {
    if constexpr (std::is_void_v<Result>) {
      work_(rows);
    } else {
      result_.emplace(work_(rows));
    }
  }

  Thread& thread_;
  Work& work_;
  std::optional<Stored> result_;
};

}  // namespace tidemark::detail
