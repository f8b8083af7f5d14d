#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <mutex>

#include <tidemark/storage/detail/database_request.hpp>
#include <tidemark/storage/storage_stats.hpp>

namespace tidemark::detail {

/// Opens a connection to the store's database, ready for use. May be called again after an error.
using OpenRows = std::function<UploadRows()>;

/// The thread that owns the writing connection. It drains its whole queue into one transaction, so
/// that hundreds of offset commits share one sync (group commit). A request is answered only after
/// the COMMIT of its group returned.
///
/// A request whose work throws a StorageError fails alone. Any other error fails the group; a
/// COMMIT that failed may still have happened, so the connection is made anew and the log is
/// checkpointed whole before the next group: after a failed sync the kernel may have dropped pages
/// of the log that later commits would build on.
///
/// Between groups the write lock is left free for a moment, so that another process that polls for
/// it gets its turn: a twentieth of the time that it was held, and as long as it was held while
/// `data_version` shows that another one writes.
///
/// Thread safety: `run` from the tasks of any executor. Lifetime: ends when no request waits.
class CommitThread {
 public:
  struct Options {
    std::chrono::nanoseconds commit_timeout;  // Then a locked database is `busy`.
    std::function<void()> want_checkpoint;    // Asks another thread for a passive one.
    /// Gives back disk space that was set aside; false when there is none. For deletes on a full
    /// disk.
    std::function<bool()> release_reserve;
  };

  CommitThread(Environment& environment, OpenRows open, Options options);
  ~CommitThread();

  /// `co_await commits.run(work)`: what `work(UploadRows&)` gives, once it is durable. `work` lives
  /// until then, changes rows with at most one statement that can be refused, and may be run again.
  template <class Work>
  auto run(Work& work) {
    return RequestAwaiter<CommitThread, Work>(*this, work, false);
  }
  /// The same for work that frees space, which a full disk must not refuse.
  template <class Work>
  auto run_delete(Work& work) {
    return RequestAwaiter<CommitThread, Work>(*this, work, true);
  }

  void enqueue(DatabaseRequest& request);
  /// Adds what this thread has counted.
  void add_to(StorageStats& stats) const;

 private:
  std::chrono::nanoseconds turn();
  /// Keeps the log's size in log_bytes_ after each commit.
  void watch_log();
  /// Connected, on a log that can be trusted and is not too long, in a transaction. False while
  /// others are in the way.
  bool begin();
  /// Makes the connection anew, but only to the same file.
  void reconnect();
  /// False while others are in the way.
  bool prepare_log();
  /// Answers what has waited for too long.
  void give_up(TimePoint now);
  void commit_group();
  void execute(DatabaseRequest& request);
  void commit();
  void roll_back();
  /// On a full disk: makes room with the reserve for what frees space, and fails the rest with
  /// `failure`. False: there is nothing of the kind, or no room.
  bool keep_deletes(const std::exception_ptr& failure);
  void fail_group(const std::exception_ptr& error);
  void answer(RequestList& requests);
  void note_other_writers();
  std::chrono::nanoseconds pause_after(std::chrono::nanoseconds held) const;

  Environment& environment_;
  const OpenRows open_;
  const Options options_;
  std::unique_ptr<UploadRows> rows_;
  bool failed_ = false;  // A COMMIT did: no group before a new connection and a whole checkpoint.
  RequestQueue queue_;
  RequestList group_;                        // Of the present transaction.
  bool deletes_only_ = false;                // The disk is full, and the reserve is for these.
  bool reserve_given_up_ = false;            // And not asked for again yet.
  TimePoint not_before_ = TimePoint::min();  // The write lock is left free until then.
  std::int64_t data_version_ = 0;
  TimePoint others_seen_at_ = TimePoint::min();
  std::atomic<std::uint64_t> log_bytes_{0};
  std::uint64_t checkpoint_at_bytes_;
  std::atomic<std::uint64_t> groups_{0};
  std::atomic<std::uint64_t> checkpoints_{0};
  mutable std::mutex latency_mutex_;
  LatencyHistogram latency_;
  std::unique_ptr<TurnThread> thread_;  // Last: its turns use the members above.
};

}  // namespace tidemark::detail
