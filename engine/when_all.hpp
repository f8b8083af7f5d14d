#pragma once

#include <array>
#include <cstddef>
#include <exception>
#include <optional>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include <tidemark/engine/stop.hpp>
#include <tidemark/engine/task.hpp>

namespace tidemark {
namespace detail {

/// Starts several tasks at once and continues the awaiter when the last has finished. The first
/// that fails asks the others to stop.
class Gather {
 public:
  Gather(Executor& executor, const std::stop_token& outer)
      : executor_(executor), from_outer_(outer, ForwardStop{&source_}) {}

  /// A task's place in the gathering; stays where it is until the awaiter continues.
  struct Member : WorkItem {
    Gather* gather = nullptr;
    PromiseBase* promise = nullptr;
    std::exception_ptr (*failure)(PromiseBase&) = nullptr;
  };

  template <class T>
  void add(Member& member, Task<T>& task) {
    auto& promise = TaskAccess::promise(task);
    member.gather = this;
    member.promise = &promise;
    member.failure = [](PromiseBase& base) { return static_cast<Promise<T>&>(base).failure(); };
    member.run = [](WorkItem& item) noexcept { finished(static_cast<Member&>(item)); };
    ++pending_;
    promise.attach(member, executor_, &token_);
    promise.executor->post(promise);
  }

  bool await_ready() const noexcept { return pending_ == 0; }
  template <std::derived_from<PromiseBase> Awaiting>
  void await_suspend(std::coroutine_handle<Awaiting> awaiter) noexcept {
    awaiter_ = &awaiter.promise();
  }
  void await_resume() const {
    if (failure_) std::rethrow_exception(failure_);
  }

 private:
  static void finished(Member& member) noexcept {
    Gather& self = *member.gather;
    if (!self.failure_) {
      self.failure_ = member.failure(*member.promise);
      if (self.failure_) self.source_.request_stop();
    }
    if (--self.pending_ == 0) self.executor_.run_next(*self.awaiter_);
  }

  Executor& executor_;
  std::stop_source source_;
  const std::stop_token token_ = source_.get_token();
  StopForwarder from_outer_;
  std::size_t pending_ = 0;
  WorkItem* awaiter_ = nullptr;
  std::exception_ptr failure_;  // The first: later ones may come only of the stop.
};

template <class T>
using OrMonostate = std::conditional_t<std::is_void_v<T>, std::monostate, T>;

template <class T>
OrMonostate<T> take_result(Task<T>& task) {
  if constexpr (std::is_void_v<T>) {
    TaskAccess::promise(task).take();
    return {};
  } else {
    return TaskAccess::promise(task).take();
  }
}

}  // namespace detail

/// Runs all tasks at once and gives their results in order, std::monostate for void. When any fails
/// the others are asked to stop, all are waited for, and the failure that came first is thrown.
template <class... Ts>
Task<std::tuple<detail::OrMonostate<Ts>...>> when_all(Task<Ts>... tasks) {
  Executor* const executor = co_await current_executor();
  const std::stop_token outer = co_await current_stop_token();
  detail::Gather gather(*executor, outer);
  std::array<detail::Gather::Member, sizeof...(Ts)> members;
  std::size_t place = 0;
  (gather.add(members[place++], tasks), ...);
  co_await gather;
  co_return std::tuple<detail::OrMonostate<Ts>...>{detail::take_result(tasks)...};
}

/// The same for any number of tasks of one kind.
template <class T>
Task<std::vector<detail::OrMonostate<T>>> when_all(std::vector<Task<T>> tasks) {
  Executor* const executor = co_await current_executor();
  const std::stop_token outer = co_await current_stop_token();
  detail::Gather gather(*executor, outer);
  std::vector<detail::Gather::Member> members(tasks.size());
  for (std::size_t i = 0; i < tasks.size(); ++i) gather.add(members[i], tasks[i]);
  co_await gather;
  std::vector<detail::OrMonostate<T>> results;
  results.reserve(tasks.size());
  for (Task<T>& task : tasks) results.push_back(detail::take_result(task));
  co_return results;
}

}  // namespace tidemark
