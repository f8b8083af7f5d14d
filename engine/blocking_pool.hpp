#pragma once

#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <thread>
#include <vector>

#include <tidemark/engine/driver.hpp>
#include <tidemark/engine/event_fd.hpp>

namespace tidemark::detail {

/// A bounded number of threads that make blocking system calls for one driver. Threads start when
/// there is work that no idle one can take, and stay.
///
/// Thread safety: one thread, the driver's, calls everything; `finished` wakes it.
class BlockingPool {
 public:
  /// `finished` is signalled when completions can be taken.
  BlockingPool(unsigned max_threads, EventFd& finished);
  ~BlockingPool();
  BlockingPool(const BlockingPool&) = delete;
  BlockingPool& operator=(const BlockingPool&) = delete;

  /// Throws std::system_error or std::bad_alloc when not even one thread can be started.
  void submit(Operation& operation);
  /// Takes back an operation that no thread has begun. False when it is too late.
  bool withdraw(Operation& operation);
  /// All operations that have finished since the last call.
  OperationQueue take_completed();
  /// Operations submitted and not yet taken back.
  std::size_t in_flight() const { return in_flight_; }

 private:
  void start_thread();
  void work();

  const unsigned max_threads_;
  EventFd& finished_;
  std::size_t in_flight_ = 0;
  std::mutex mutex_;
  std::condition_variable more_;
  OperationQueue waiting_;
  OperationQueue completed_;
  std::size_t idle_ = 0;  // Threads that will look at `waiting_` again.
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace tidemark::detail
