#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include <tidemark/engine/wait_list.hpp>
#include <tidemark/io/buffer.hpp>
#include <tidemark/io/directory.hpp>
#include <tidemark/storage/detail/checkpoint_thread.hpp>
#include <tidemark/storage/detail/commit_thread.hpp>
#include <tidemark/storage/detail/read_thread.hpp>
#include <tidemark/storage/detail/stable_files.hpp>
#include <tidemark/storage/detail/storage_core.hpp>
#include <tidemark/storage/detail/sync_group.hpp>
#include <tidemark/storage/storage_options.hpp>

namespace tidemark::detail {

/// What the operations of one SQLiteStorage share: the folder, the database threads, and what is
/// known of the files.
///
/// Thread safety: one executor, unless a member says otherwise. Lifetime: outlives its operations.
class Store {
 public:
  Store(StorageCore& core, StorageOptions options, Directory upload_folder,
        std::size_t bytes_in_flight);

  Executor& executor() const { return core.turns.executor(); }
  Environment& environment() const { return executor().environment(); }
  /// When an operation that begins now stops waiting for an upload.
  TimePoint lock_deadline() const { return later(environment().now(), options.lock_timeout); }

  Task<std::optional<UploadState>> find_state(UploadId id);
  /// Commits something, unless nothing is to be durable; gives the upload's row. A COMMIT that
  /// failed, or whose process died in it while others went on, has not happened for whoever reads,
  /// but a recovery of the log after a power cut may still find it; a later commit takes its place
  /// in the log. So who changes or removes bytes that it may speak of settles first; who removes
  /// them may use the reserve of a full disk.
  enum class Next { write, remove };
  Task<std::optional<UploadState>> settle(UploadId id, Next next);

  /// Opens the database's connections and starts their threads; it blocks. The schema is there.
  /// Throws SqliteError; it may be tried again.
  void start_threads();
  /// Ends the database threads; it blocks. No operation runs, none comes after.
  void stop_threads();
  /// Any thread.
  void add_to(StorageStats& stats) const;

  /// While it lives, the storage does not close. Throws `shutting_down` when it has.
  class Running {
   public:
    explicit Running(Store& store);
    ~Running();
    Running(const Running&) = delete;
    Running& operator=(const Running&) = delete;

   private:
    Store& store_;
  };
  /// Waits until nothing runs.
  Task<void> drain();

  StorageCore& core;
  const StorageOptions options;
  Directory folder;
  SyncGroup syncs{folder};
  DirectorySync names{folder};
  StableFiles stable;
  BufferPool buffers;  // The users'.
  BufferPool copies;   // For bytes of users that are not aligned.

 private:
  ReserveFile reserve_;

 public:
  std::unique_ptr<CheckpointThread> checkpoints;  // Outlives the commits, which wake it.
  std::unique_ptr<CommitThread> commits;
  std::unique_ptr<ReadThread> reads;
  bool closing = false;  // Users begin nothing new,
  bool closed = false;   // nor does what they began before.

 private:
  std::atomic<std::size_t> running_ = 0;  // Changed on the executor, read by add_to.
  mutable std::mutex threads_mutex_;      // add_to against stop_threads.
  WaitList idle_;
};

/// SQLite's VFS that the options name; null: its default one.
const char* vfs_of(const StorageOptions& options);
/// Opens a connection to an existing database, with the settings that the store's promises need.
Database open_connection(const StorageOptions& options, int flags);
/// The same, with a write-ahead log. Each connection asks for it: the crash of a process that made
/// the database can leave a log beside a header that knows of none, which passes for a database
/// with one until the log is closed. Without a log SQLite syncs no folder after a commit.
Database connect(const StorageOptions& options);

}  // namespace tidemark::detail
