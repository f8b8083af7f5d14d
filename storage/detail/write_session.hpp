#pragma once

#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>

#include <tidemark/engine/async_mutex.hpp>
#include <tidemark/storage/append.hpp>
#include <tidemark/storage/detail/storage_core.hpp>
#include <tidemark/storage/storage.hpp>

namespace tidemark::detail {

/// One writer's hold on an upload, built on a backend's own operations: what Storage::append and
/// Storage::open_writer are by default. It outlives the writer while its end goes on.
///
/// Bytes go to write_chunk in steps, above the committed offset, and become part of the upload by
/// update_offset_atomic after a sync. So an end at any point leaves the contiguous bytes of whole
/// steps, or nothing new when there is a checksum.
///
/// Thread safety: the tasks run on the storage's executor, one at a time; `abandon` in any thread.
/// Lifetime: owned by shared pointers only.
class WriteSession : public std::enable_shared_from_this<WriteSession> {
 public:
  WriteSession(Storage& storage, StorageCore& core, const UploadId& id,
               const WriterOptions& options, const char* operation);

  Executor& executor() const { return storage_.executor(); }

  /// Waits for the upload's turn and checks that it can be written. First of all, once; after an
  /// error the session is over.
  Task<void> open();
  // As in UploadWriter.
  Task<bool> write(std::span<const std::byte> bytes);
  Task<AppendResult> commit();
  Task<AppendResult> close();
  std::uint64_t offset() const { return written_; }
  std::stop_token stop_token() const { return taken_over_.get_token(); }

  /// A close that nobody waits for.
  void abandon();
  /// Ends it, unless it has ended. For the tasks that abandon and a take-over start.
  Task<void> end(AppendStatus status);

 private:
  bool has_ended() const { return result_ || failure_; }
  bool is_complete() const { return length_ && committed_ >= *length_; }
  void on_taken_over();
  Task<void> begin();
  Task<AppendStatus> write_steps(std::span<const std::byte> bytes);
  Task<void> commit_written();
  Task<void> finish(AppendStatus status, bool keep);
  /// In a catch block: the error that is in flight ends the session.
  void fail();

  Storage& storage_;
  StorageCore& core_;
  const UploadId id_;
  const WriterOptions options_;
  const char* const operation_;
  std::stop_source taken_over_;
  UploadTurns::Turn turn_;
  AsyncMutex step_;  // A take-over or the writer's end may come while the owner's operation runs.
  std::optional<std::uint64_t> length_;
  std::uint64_t committed_ = 0;
  std::uint64_t written_ = 0;
  std::optional<AppendResult> result_;  // Once ended: the answer of close,
  std::exception_ptr failure_;          // or its error.
};

}  // namespace tidemark::detail
