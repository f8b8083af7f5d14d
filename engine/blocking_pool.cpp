#include <utility>

#include <tidemark/engine/assert.hpp>
#include <tidemark/engine/blocking_pool.hpp>

namespace tidemark::detail {

BlockingPool::BlockingPool(unsigned max_threads, EventFd& finished)
    : max_threads_(max_threads), finished_(finished) {}

BlockingPool::~BlockingPool() {
  TIDEMARK_ASSERT(in_flight_ == 0, "a driver ends only after its operations");
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  more_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void BlockingPool::submit(Operation& operation) {
  {
    std::lock_guard lock(mutex_);
    if (waiting_.size() >= idle_ && threads_.size() < max_threads_) start_thread();
    waiting_.push(operation);
  }
  ++in_flight_;
  more_.notify_one();
}

void BlockingPool::start_thread() {
  try {
    threads_.emplace_back([this] { work(); });
  } catch (...) {
    // No thread, or no memory for one: fewer than asked for serve as well, only slower.
    if (threads_.empty()) throw;
  }
}

bool BlockingPool::withdraw(Operation& operation) {
  std::lock_guard lock(mutex_);
  if (!waiting_.remove(operation)) return false;
  --in_flight_;
  return true;
}

OperationQueue BlockingPool::take_completed() {
  std::lock_guard lock(mutex_);
  OperationQueue completed = std::exchange(completed_, OperationQueue());
  in_flight_ -= completed.size();
  return completed;
}

void BlockingPool::work() {
  std::unique_lock lock(mutex_);
  while (true) {
    ++idle_;
    more_.wait(lock, [this] { return stopping_ || !waiting_.empty(); });
    --idle_;
    if (waiting_.empty()) return;
    Operation& operation = *waiting_.pop();
    lock.unlock();
    perform_blocking(operation);
    lock.lock();
    const bool first = completed_.empty();
    completed_.push(operation);
    if (first) finished_.signal();
  }
}

}  // namespace tidemark::detail
