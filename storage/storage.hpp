#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include <tidemark/engine/task.hpp>
#include <tidemark/storage/append.hpp>
#include <tidemark/storage/metadata.hpp>
#include <tidemark/storage/storage_error.hpp>
#include <tidemark/storage/storage_stats.hpp>
#include <tidemark/storage/upload.hpp>
#include <tidemark/storage/upload_id.hpp>
#include <tidemark/storage/upload_reader.hpp>
#include <tidemark/storage/upload_writer.hpp>

namespace tidemark {

namespace detail {
class StorageCore;
class WriteSession;
}  // namespace detail

/// Uploads in the order of their ids, a page at a time.
struct UploadPage {
  std::vector<Upload> uploads;
  std::optional<UploadId> next = {};  // The next page's `after`; none: this was the last.
};

struct SweepOptions {
  /// Younger files and rows may belong to a create in another process and are left alone.
  std::chrono::seconds min_age = std::chrono::hours(1);
  bool dry_run = false;  // Only reports what would be removed.
};

struct SweepReport {
  std::vector<UploadId> orphan_files;  // Files without a row: removed.
  std::vector<UploadId> orphan_rows;   // Rows at offset 0 without a file: removed.
  std::vector<UploadId> corrupt;       // Rows with bytes and no file, or too short a file: kept.
};

/// Resumable uploads, each a row of facts and a file of bytes, behind one asynchronous interface.
///
/// A backend writes the first group of operations. On these the second group is built here, correct
/// for any backend whose first group is: its steps are serialised per upload inside this process.
/// SQLiteStorage overrides it with operations that are better, and safe between processes.
///
/// What a caller expects to happen is answered as a value; everything else throws StorageError, or
/// std::bad_alloc. The next call works then as after any other error.
/// A task that is asked to stop throws std::errc::operation_canceled where its result has no status
/// for that, and leaves no lock and no operation behind.
/// Views passed to an operation live until its await returns; ids and metadata are taken by value.
/// A length, or an offset to write at, above k_max_length is `invalid_argument`; bytes that would
/// end above it are `length_exceeded`.
///
/// Thread safety: operations may be created and awaited in any thread; each runs on the storage's
/// executor. Lifetime: the engine outlives the storage, the storage outlives its operations,
/// writers and readers, and is closed before it is destroyed.
class Storage {
 public:
  explicit Storage(Executor& executor);
  virtual ~Storage();
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;

  /// The longest upload there can be: SQLite's integers have 63 bits.
  static constexpr std::uint64_t k_max_length = std::numeric_limits<std::int64_t>::max();

  /// Every operation is bound to it.
  Executor& executor() const { return executor_; }

  // What a backend writes.

  /// Makes an upload of `length` bytes, or of a length that set_length tells later. A length of 0
  /// is complete at once. Throws `already_exists`, `quota_exceeded`, `no_space`, `lock_timeout`.
  virtual Task<void> create_upload(UploadId id, std::optional<std::uint64_t> length,
                                   Metadata metadata,
                                   std::optional<SystemTime> expires_at = std::nullopt) = 0;
  /// Throws `corrupt` for facts that contradict each other.
  virtual Task<std::optional<Upload>> get_upload(UploadId id) = 0;
  /// Raises the offset to `offset`; a lower one changes nothing. The bytes below were written with
  /// write_chunk. Throws `not_found`, `length_exceeded`, `corrupt` when those bytes are not there.
  virtual Task<void> update_offset(UploadId id, std::uint64_t offset) = 0;
  /// Moves the offset from `expected` to `next`; false when it stands elsewhere or the upload is
  /// gone. Throws `invalid_argument` when `next` is below `expected`, and as update_offset. The
  /// default reads, then writes.
  virtual Task<bool> update_offset_atomic(UploadId id, std::uint64_t expected, std::uint64_t next);
  /// Tells a deferred length. Throws `not_found`, `invalid_argument` when it is known already or
  /// below the offset. A length that equals the offset completes the upload.
  virtual Task<void> set_length(UploadId id, std::uint64_t length) = 0;
  /// Removes row, bytes and lock. Deleting nothing is no error. Throws `lock_timeout`.
  virtual Task<void> delete_upload(UploadId id) = 0;
  /// Writes bytes that update_offset makes part of the upload later. Throws `not_found`,
  /// `invalid_argument` below the committed offset, `length_exceeded` beyond the length.
  virtual Task<void> write_chunk(UploadId id, std::uint64_t offset,
                                 std::span<const std::byte> bytes) = 0;
  /// What was written is stable when it returns. Throws `not_found`.
  virtual Task<void> sync(UploadId id) = 0;
  /// The first bytes of the upload, at most `max_bytes`, bounded by the committed offset. Throws
  /// `not_found`.
  virtual Task<std::vector<std::byte>> read_file(UploadId id, std::size_t max_bytes) = 0;
  /// Where the bytes are; nothing is looked up.
  virtual std::filesystem::path get_file_path(UploadId id) const = 0;
  /// Uploads whose ids come after `after`, in order; `limit` is at least 1. Facts that contradict
  /// each other are left out.
  virtual Task<UploadPage> list_uploads(std::optional<UploadId> after, std::size_t limit) = 0;
  /// Unfinished uploads whose expiry has passed.
  virtual Task<std::vector<UploadId>> get_expired_uploads() = 0;
  /// Deletes them, but none that is being written; gives how many.
  virtual Task<std::size_t> cleanup_expired_uploads() = 0;

  // What is built on that. An append first checks, in this order: the upload exists, is not
  // complete, has not expired, stands at the offset, and has room for the bytes.

  /// Checks that the upload stands at `offset`, writes `bytes` there, makes them stable and commits
  /// the new offset, as one step under one lock. Throws `not_found`, `expired`, `already_complete`,
  /// `length_exceeded`, `lock_timeout`, `no_space`, `corrupt`, `io_error`.
  virtual Task<AppendResult> append(UploadId id, std::uint64_t offset,
                                    std::span<const std::byte> bytes, AppendOptions options = {});
  /// Takes the upload for writing. When it does not stand at the expected offset the writer has
  /// ended from the start, and its close() says so. Throws as append.
  virtual Task<std::unique_ptr<UploadWriter>> open_writer(UploadId id, WriterOptions options = {});
  /// Throws `not_found`.
  virtual Task<std::unique_ptr<UploadReader>> open_reader(UploadId id);
  /// Reads committed bytes at `offset`; fewer than asked for at the committed offset. Throws
  /// `not_found`.
  virtual Task<std::size_t> read_at(UploadId id, std::uint64_t offset, std::span<std::byte> bytes);
  /// Waits until the committed offset is greater than `beyond`, or the upload is complete; gives
  /// the offset. Throws `not_found` also when the upload is deleted meanwhile. The default asks
  /// get_upload after pauses that grow from 5 to 100 ms, and after every commit of this object.
  virtual Task<std::uint64_t> wait_for_offset(UploadId id, std::uint64_t beyond);
  /// Makes a finished upload from the bytes of finished ones, in order. Doing it again with the
  /// same parts is no error; the parts stay. Throws `not_found`, `invalid_argument` for an
  /// unfinished part or none or one that is `id`, `already_exists` when `id` is something else. The
  /// default holds bytes in memory, knows an upload again by them, and after a crash may leave `id`
  /// unfinished.
  virtual Task<void> concatenate(UploadId id, std::vector<UploadId> parts, Metadata metadata);
  /// Hands the finished file over under another name and forgets the upload. Throws `not_found`,
  /// `invalid_argument` for an unfinished upload, `already_exists` when `path` exists. A crash
  /// leaves the bytes under one name or both, never none. The default writes a copy of them, which
  /// it holds in memory.
  virtual Task<void> release_to(UploadId id, std::filesystem::path path);
  /// Throw `not_found`. A complete upload never expires, so that its expiry stays none. The
  /// defaults hold the upload's bytes in memory, delete it and make it anew: a crash between may
  /// lose it, others see it come and go, `created_at` changes, and an upload whose stored metadata
  /// cannot be read is left alone (`corrupt`). A backend that keeps anything across a restart
  /// overrides both.
  virtual Task<void> set_expiry(UploadId id, std::optional<SystemTime> expires_at);
  virtual Task<void> set_metadata(UploadId id, Metadata metadata);
  /// Removes what a crash between two steps can leave behind: nothing, by default.
  virtual Task<SweepReport> sweep(SweepOptions options = {});
  /// Writes all rows, not the bytes, as a database of the common format to `path`. Throws
  /// `already_exists`. The default lists the uploads page by page, while they change.
  virtual Task<void> backup(std::filesystem::path path);
  /// Any thread.
  virtual StorageStats stats() const;
  /// Once, at the end, when no writer or reader is left: begin no operation after it. Waits for
  /// operations that run, which their own time-outs bound, and for writers that were destroyed and
  /// not closed; what of these still runs after `grace` is asked to stop, and waited for.
  virtual Task<void> close(std::chrono::nanoseconds grace);

 protected:
  /// What append and open_writer work with, for a storage of this library that has a better one.
  virtual std::shared_ptr<detail::WriteSession> make_session(const UploadId& id,
                                                             const WriterOptions& options,
                                                             const char* operation);
  /// What this class keeps about uploads in use, and counts.
  detail::StorageCore& core() const;
  /// Whether an append, a writer or another change has the upload's turn or waits for it, so that
  /// cleanup_expired_uploads leaves it alone. On the storage's executor.
  bool is_in_use(const UploadId& id) const;

 private:
  Executor& executor_;
  const std::unique_ptr<detail::StorageCore> core_;
};

}  // namespace tidemark
