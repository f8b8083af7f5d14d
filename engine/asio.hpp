#pragma once

#include <concepts>
#include <condition_variable>
#include <cstddef>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include <boost/asio/associated_cancellation_slot.hpp>
#include <boost/asio/associated_executor.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/cancellation_type.hpp>
#include <boost/asio/execution/context.hpp>
#include <boost/asio/execution/executor.hpp>
#include <boost/asio/execution_context.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/query.hpp>

#include <tidemark/engine/root.hpp>

namespace tidemark {
namespace detail {

/// An asynchronous operation of Asio whose task has not finished yet.
struct AsioPending {
  virtual ~AsioPending() = default;
  /// Posts the completion to the handler's executor; the operation then owns itself.
  virtual void post_completion() = 0;

  std::stop_source stop;
  AsioPending* previous = nullptr;
  AsioPending* next = nullptr;
};

/// What is pending in one execution context. When the context goes away it stops and drains all of
/// that, and destroys the handlers without calling them. The lock makes a completion either reach
/// the context while it is whole, or not touch it at all.
class AsioService final : public boost::asio::execution_context::service {
 public:
  using key_type = AsioService;
  static inline boost::asio::execution_context::id id;

  explicit AsioService(boost::asio::execution_context& context) : service(context) {}
  /// One that is made while its context shuts down is shut down here only.
  ~AsioService() override { AsioService::shutdown(); }

  /// False when the context is going away: the operation must not begin.
  bool add(AsioPending& operation) {
    std::lock_guard lock(mutex_);
    if (shut_down_) return false;
    operation.next = first_;
    if (first_ != nullptr) first_->previous = &operation;
    first_ = &operation;
    return true;
  }

  /// Takes over an operation whose task has ended. On the engine's thread.
  void finished(AsioPending& operation) {
    std::lock_guard lock(mutex_);
    (operation.previous == nullptr ? first_ : operation.previous->next) = operation.next;
    if (operation.next != nullptr) operation.next->previous = operation.previous;
    if (!shut_down_) return operation.post_completion();
    keep(operation);
    if (first_ == nullptr) all_drained_.notify_one();
  }
  /// Until the shutdown. Within `finished` only.
  void keep(AsioPending& operation) { operation.next = std::exchange(drained_, &operation); }

 private:
  void shutdown() override {
    std::vector<std::stop_source> stops;  // Requested without the lock: a stop runs others' code.
    {
      std::lock_guard lock(mutex_);
      shut_down_ = true;
      for (AsioPending* each = first_; each != nullptr; each = each->next) {
        stops.push_back(each->stop);
      }
    }
    TIDEMARK_ASSERT(stops.empty() || Executor::current() == nullptr,
                    "an engine's thread cannot wait for the engine");
    for (std::stop_source& stop : stops) stop.request_stop();
    {
      std::unique_lock lock(mutex_);
      all_drained_.wait(lock, [this] { return first_ == nullptr; });
    }
    while (drained_ != nullptr) {
      const std::unique_ptr<AsioPending> operation(std::exchange(drained_, drained_->next));
    }
  }

  std::mutex mutex_;
  std::condition_variable all_drained_;
  bool shut_down_ = false;
  AsioPending* first_ = nullptr;    // Whose tasks run.
  AsioPending* drained_ = nullptr;  // Whose tasks ended when the context called nobody any more.
};

/// The execution context behind an executor of either of Asio's executor models.
template <class AsioExecutor>
boost::asio::execution_context& context_of(const AsioExecutor& executor) {
  if constexpr (boost::asio::execution::is_executor<AsioExecutor>::value) {
    return boost::asio::query(executor, boost::asio::execution::context);
  } else {
    return executor.context();
  }
}

template <class T, class Handler>
class AsioOperation final : private AsioPending {
 public:
  AsioOperation(Handler handler, const Executor& executor)
      : handler_(std::move(handler)),
        from_engine_(executor.engine_stop(), ForwardStop{&stop}),
        work_(boost::asio::get_associated_executor(handler_)),
        service_(boost::asio::use_service<AsioService>(context_of(work_.get_executor()))) {}

  static void start(std::unique_ptr<AsioOperation> self, Executor& executor, Task<T> task) {
    AsioOperation* const running = self.get();
    const auto root = std::make_shared<Root<T>>(
        executor, std::move(task), [running](Task<T>& done) { running->finished(done); },
        running->stop.get_token());
    auto slot = boost::asio::get_associated_cancellation_slot(self->handler_);
    if (slot.is_connected()) slot.assign(Cancel{self->stop});
    if (!self->service_.add(*self)) return;
    self.release();  // From here on nothing throws.
    Root<T>::begin(root);
  }

 private:
  using Value = std::conditional_t<std::is_void_v<T>, std::monostate, T>;

  /// What is posted. A context that shuts down may destroy it in the post, on the engine's thread,
  /// where no handler may end: what it holds can be anything.
  struct Completion {
    explicit Completion(AsioOperation* which) : operation(which) {}
    Completion(Completion&&) noexcept = default;
    ~Completion() {
      if (!operation || Executor::current() == nullptr) return;
      AsioOperation& ended = *operation.release();
      ended.service_.keep(ended);
    }
    void operator()() { complete(std::move(operation)); }

    std::unique_ptr<AsioOperation> operation;
  };

  /// Shares only the stop's state, so it may be called at any time, also after the end.
  struct Cancel {
    std::stop_source stop;
    void operator()(boost::asio::cancellation_type type) {
      using Type = boost::asio::cancellation_type;
      if ((type & (Type::terminal | Type::partial)) != Type::none) stop.request_stop();
    }
  };

  /// On the engine's thread. The task's frame ends here, before the views that it was given.
  void finished(Task<T>& task) {
    try {
      Task<T> done = std::move(task);
      if constexpr (std::is_void_v<T>) {
        TaskAccess::promise(done).take();
      } else {
        value_.emplace(TaskAccess::promise(done).take());
      }
    } catch (...) {
      error_ = std::current_exception();
    }
    service_.finished(*this);
  }

  void post_completion() override {
    // Never dispatched: an executor that may run it in place would run it on the engine's thread.
    boost::asio::post(work_.get_executor(), Completion(this));
  }

  /// On the handler's executor. Frees the operation before the handler may start another.
  static void complete(std::unique_ptr<AsioOperation> self) {
    auto slot = boost::asio::get_associated_cancellation_slot(self->handler_);
    if (slot.is_connected()) slot.clear();
    Handler handler = std::move(self->handler_);
    std::exception_ptr error = std::move(self->error_);
    std::optional<Value> value = std::move(self->value_);
    self.reset();
    if constexpr (std::is_void_v<T>) {
      std::move(handler)(std::move(error));
    } else {
      if (!value) value.emplace();
      std::move(handler)(std::move(error), std::move(*value));
    }
  }

  Handler handler_;
  const StopForwarder from_engine_;
  boost::asio::executor_work_guard<boost::asio::associated_executor_t<Handler>> work_;
  AsioService& service_;
  std::exception_ptr error_;
  std::optional<Value> value_;
};

struct AsioInitiation {
  template <class Handler, class T>
  void operator()(Handler&& handler, Executor* executor, Task<T> task) const {
    using Operation = AsioOperation<T, std::decay_t<Handler>>;
    Operation::start(std::make_unique<Operation>(std::forward<Handler>(handler), *executor),
                     *executor, std::move(task));
  }
};

template <class T>
struct AsioSignature {
  static_assert(std::default_initializable<T>,
                "an operation that fails completes with an error and a default T");
  using Type = void(std::exception_ptr, T);
};
template <>
struct AsioSignature<void> {
  using Type = void(std::exception_ptr);
};

}  // namespace detail

/// Runs `task` as an asynchronous operation of Boost.Asio, for any completion token:
///
///     auto upload = co_await tidemark::async(storage->get_upload(id), asio::use_awaitable);
///
/// The task runs on the executor that it is bound to, else on `executor`. The operation completes
/// with `void(std::exception_ptr, T)`, for a T of void with `void(std::exception_ptr)`, always by a
/// post to the completion handler's associated executor, on which it keeps outstanding work; a
/// handler without one is called on Asio's system executor. T is default-initialisable: with an
/// error comes a default T.
///
/// Cancellation: `terminal` and `partial`, through the handler's cancellation slot, at any moment.
/// The task ends at its next suspension point with std::errc::operation_canceled; what it did is
/// done. As always with Asio, a signal is emitted on the handler's executor.
///
/// Lifetime: what the task was given views of lives until the handler was called or destroyed.
/// Destroying the execution context of the handler's executor stops such tasks, blocks until they
/// have drained, and destroys their handlers uncalled. So does the end of the engine, but its
/// operations complete. An engine's own thread never destroys a context in use.
template <class T, class CompletionToken>
auto async(Executor& executor, Task<T> task, CompletionToken&& token) {
  using Signature = typename detail::AsioSignature<T>::Type;
  return boost::asio::async_initiate<CompletionToken, Signature>(detail::AsioInitiation(), token,
                                                                 &executor, std::move(task));
}

/// The same for a task that is bound to an executor, as all of a storage's are.
template <class T, class CompletionToken>
auto async(Task<T> task, CompletionToken&& token) {
  Executor* const bound = detail::TaskAccess::promise(task).executor;
  TIDEMARK_ASSERT(bound != nullptr, "a task that is not bound needs an executor");
  return async(*bound, std::move(task), std::forward<CompletionToken>(token));
}

}  // namespace tidemark
