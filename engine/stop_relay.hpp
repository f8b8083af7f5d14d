#pragma once

#include <optional>
#include <stop_token>

#include <tidemark/engine/task.hpp>

namespace tidemark::detail {

/// Brings a stop request, which may come from any thread, to the executor of a suspended task, and
/// resumes that task exactly once. Part of every awaiter that can be stopped.
///
/// Use: `arm` last in await_suspend; `finish` when what was awaited has happened. In between,
/// `on_stop` runs at most once, on the executor's thread; it ends the wait and leads to `finish`.
class StopRelay : private WorkItem {
 public:
  StopRelay() { WorkItem::run = &StopRelay::run_item; }
  StopRelay(const StopRelay&) = delete;
  StopRelay& operator=(const StopRelay&) = delete;

  void arm(PromiseBase& promise, void* context, void (*on_stop)(void* context) noexcept,
           bool heeds_stop = true) {
    promise_ = &promise;
    context_ = context;
    on_stop_ = on_stop;
    if (heeds_stop && promise.stop != nullptr && promise.stop->stop_possible()) {
      callback_.emplace(*promise.stop, Post{this});
    }
  }

  /// Posts the task's resumption, once no part of a stop request can touch this frame any more.
  void finish() {
    callback_.reset();
    finished_ = true;
    if (!posted_ || seen_) promise_->executor->post_here(*promise_);
  }

 private:
  struct Post {
    StopRelay* relay;
    void operator()() const noexcept {
      relay->posted_ = true;
      relay->promise_->executor->post(*relay);
    }
  };

  static void run_item(WorkItem& item) noexcept {
    auto& self = static_cast<StopRelay&>(item);
    self.seen_ = true;
    if (self.finished_) {
      self.promise_->executor->post_here(*self.promise_);
    } else {
      self.on_stop_(self.context_);
    }
  }

  PromiseBase* promise_ = nullptr;
  void* context_ = nullptr;
  void (*on_stop_)(void*) noexcept = nullptr;
  // Written by the requesting thread, read after the callback was deregistered, which orders them.
  bool posted_ = false;
  bool seen_ = false;
  bool finished_ = false;
  std::optional<std::stop_callback<Post>> callback_;
};

}  // namespace tidemark::detail
