#pragma once

#include <chrono>
#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include <tidemark/storage/detail/database_request.hpp>

namespace tidemark::detail {

/// A thread with a connection of its own that only reads, so that a reader never waits for a sync.
/// Everything that waits is answered from one snapshot, which begins after all of it was asked.
///
/// Thread safety: `run` from the tasks of any executor. Lifetime: ends when no request waits.
class ReadThread {
 public:
  /// `busy_timeout`: how long a locked database is tried again before `busy` is thrown.
  ReadThread(Environment& environment, UploadRows rows, std::chrono::nanoseconds busy_timeout);
  ~ReadThread();

  /// `co_await reads.run(work)`: what `work(UploadRows&)` gives or throws. `work` lives until then.
  template <class Work>
  auto run(Work& work) {
    return RequestAwaiter<ReadThread, Work>(*this, work, false);
  }

  void enqueue(DatabaseRequest& request);
  std::size_t queued() const { return queue_.size(); }

 private:
  std::chrono::nanoseconds turn();
  /// In one transaction.
  void read(RequestList& requests);

  Environment& environment_;
  const std::chrono::nanoseconds busy_timeout_;
  UploadRows rows_;
  RequestQueue queue_;
  RequestList waiting_;                 // Taken from the queue, not yet answered.
  std::unique_ptr<TurnThread> thread_;  // Last: its turns use the members above.
};

}  // namespace tidemark::detail
