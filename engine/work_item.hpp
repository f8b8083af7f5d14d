#pragma once

#include <utility>

namespace tidemark {

/// Something an executor runs once: a coroutine to resume, a timer that fired, a cancel to pass on.
/// Intrusive: it lives in the frame or object that waits for it, so queueing allocates nothing.
/// It must stay alive until `run` has been called, and may be queued again only after that.
struct WorkItem {
  void (*run)(WorkItem&) noexcept = nullptr;
  WorkItem* next = nullptr;
};

/// First in, first out, of work items that it does not own. Not thread-safe.
class WorkQueue {
 public:
  bool empty() const { return head_ == nullptr; }

  void push(WorkItem& item) {
    item.next = nullptr;
    *(head_ == nullptr ? &head_ : &tail_->next) = &item;
    tail_ = &item;
  }

  WorkItem* pop() {
    WorkItem* item = head_;
    if (item != nullptr) head_ = item->next;
    return item;
  }

  /// Takes everything out at once.
  WorkQueue take() { return std::exchange(*this, WorkQueue()); }

 private:
  WorkItem* head_ = nullptr;
  WorkItem* tail_ = nullptr;  // Meaningful only while head_ is set.
};

}  // namespace tidemark
