#pragma once

#include <cstdint>
#include <optional>
#include <stop_token>

#include <tidemark/io/file_lock.hpp>
#include <tidemark/storage/detail/store.hpp>

namespace tidemark::detail {

/// A1: opens the file of an upload and takes its lock. Throws `lock_timeout`, `corrupt` when
/// something else stands at the name, and std::system_error.
Task<FileLock> lock_file(Store& store, const UploadId& id, Directory::Open how, TimePoint deadline,
                         const char* operation);

/// An upload whose file this process has locked, for one operation. The rules A1 to A6 of an append
/// are here and in FileSession; whoever uses it has the upload's turn (A1's in-process lock).
///
/// Thread safety: one task at a time. Lifetime: the store outlives it. Errors: StorageError.
class HeldUpload {
 public:
  HeldUpload(Store& store, const UploadId& id, const char* operation)
      : store_(store), id_(id), operation_(operation) {}

  Executor& executor() const { return store_.executor(); }

  /// lock_file, never making the file. False when there is none.
  Task<bool> lock(TimePoint deadline);
  /// A1, then A2: only with the lock it reads the row. Throws `not_found`, `lock_timeout`, and
  /// `corrupt` when the file has fewer bytes than the offset. A stop requested on `newer` ends the
  /// wait for another process: then it has no lock, and tells what the row says.
  Task<UploadState> take(TimePoint deadline, std::stop_token newer = {});
  /// Before bytes are written or cut: see Store::settle. Once is enough. Throws `not_found`, `busy`
  /// when another program moved the offset meanwhile.
  Task<void> settle();
  bool is_unsettled() const { return unsettled_; }
  /// A6. Also when nothing was taken.
  void release() { lock_.release(); }
  /// The same on a worker thread, for a file that was unlinked.
  Task<void> close() { return lock_.close(); }

  File& file() { return lock_.file(); }
  const FileStatus& status() const { return status_; }
  /// Whether all that was written before is stable, so that only what is new needs a sync.
  bool is_rest_stable() const { return prefix_stable_ && !found_bytes_; }
  /// Bytes were written in the page cache, or past it without a sync, up to `end`.
  void wrote(std::uint64_t end, bool stable);
  /// Bytes that an earlier operation wrote are to be made stable: when that fails, nobody writes
  /// them again. Those of a file that is not known to be stable count as found, and chunks.
  void found_bytes() { dirty_ = found_bytes_ = true; }

  /// A4: makes everything in the file stable, unless it is.
  Task<void> make_stable();
  /// A4 for an offset that is acknowledged without moving it.
  Task<void> confirm(Durability durability);

  /// A4 and A5: makes the bytes stable, then moves the offset. A commit that completes the upload
  /// first cuts the file to its length. Not moved: the row is as `now` says. Throws `not_found`
  /// when it was deleted, `length_exceeded` when a length below `to` was told meanwhile.
  Task<OffsetMove> commit(std::uint64_t from, std::uint64_t to, Durability durability);

 private:
  /// A1 and A2. Without the lock when `newer` was stopped.
  Task<void> lock_and_read(TimePoint deadline, std::stop_token newer);
  Task<OffsetMove> move_offset(std::uint64_t from, std::uint64_t to);
  [[noreturn]] void fail(Errc code, const char* detail) const;

  Store& store_;
  const UploadId id_;
  const char* const operation_;
  FileLock lock_;
  FileStatus status_;
  std::optional<UploadState> state_;
  bool prefix_stable_ = false;
  bool unsettled_ = false;
  bool dirty_ = false;
  bool found_bytes_ = false;
  std::uint64_t sync_failures_ = 0;  // As SyncGroup counts, before the first write.
};

}  // namespace tidemark::detail
