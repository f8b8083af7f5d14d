#pragma once

#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <utility>

#include <tidemark/engine/stop.hpp>
#include <tidemark/engine/task.hpp>

namespace tidemark::detail {

/// A task that no task of ours awaits, started on an engine that owns it until it has finished.
/// Then `on_done(task)` runs on the executor's thread with the finished task, whose result it may
/// take; what is left of the task goes away with the call. A stop is requested through `source()`,
/// or by the engine when it ends.
///
/// Lifetime: shared by whoever started it and, while it runs, by itself.
template <class T>
class Root : private WorkItem {
 public:
  using OnDone = std::function<void(Task<T>&)>;

  /// Starts `task` on the executor that it is bound to, else on `where`. A stop requested on
  /// `outer` is passed on. Any thread.
  static std::shared_ptr<Root> start(Executor& where, Task<T> task, OnDone on_done,
                                     const std::stop_token& outer) {
    auto root = std::make_shared<Root>(where, std::move(task), std::move(on_done), outer);
    begin(root);
    return root;
  }

  /// The part of start() that needs no memory.
  static void begin(const std::shared_ptr<Root>& root) noexcept {
    root->keep_ = root;
    PromiseBase& promise = TaskAccess::promise(root->task_);
    promise.attach(*root, root->executor_, &root->token_);
    root->executor_.root_started();
    root->executor_.post(promise);
  }

  Root(Executor& where, Task<T> task, OnDone on_done, const std::stop_token& outer)
      : task_(std::move(task)),
        executor_(executor_of(where, TaskAccess::promise(task_))),
        on_done_(std::move(on_done)),
        from_outer_(outer, ForwardStop{&source_}) {
    WorkItem::run = &Root::finish;
  }

  std::stop_source& source() { return source_; }

 private:
  static void finish(WorkItem& item) noexcept {
    auto& self = static_cast<Root&>(item);
    Executor& executor = self.executor_;
    {
      const std::shared_ptr<Root> keep = std::move(self.keep_);
      const OnDone on_done = std::move(self.on_done_);
      Task<T> task = std::move(self.task_);
      on_done(task);
    }
    executor.root_finished();
  }

  static Executor& executor_of(Executor& where, const PromiseBase& promise) {
    return promise.executor == nullptr ? where : *promise.executor;
  }

  Task<T> task_;
  Executor& executor_;
  OnDone on_done_;
  std::stop_source source_;
  const std::stop_token token_ = source_.get_token();
  StopForwarder from_outer_;
  std::shared_ptr<Root> keep_;
};

}  // namespace tidemark::detail
