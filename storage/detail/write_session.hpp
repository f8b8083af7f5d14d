#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <exception>
#include <limits>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <stop_token>

#include <tidemark/engine/async_mutex.hpp>
#include <tidemark/io/buffer.hpp>
#include <tidemark/storage/append.hpp>
#include <tidemark/storage/detail/storage_core.hpp>
#include <tidemark/storage/detail/upload_state.hpp>
#include <tidemark/storage/upload_id.hpp>

namespace tidemark::detail {

/// One writer's hold on an upload: what Storage::append and Storage::open_writer do on any backend.
/// It outlives the writer while its end goes on.
///
/// Bytes are written in pieces above the committed offset, and become part of the upload by
/// commit_to. So an end at any point leaves the contiguous bytes of whole pieces, or nothing new
/// when there is a checksum.
///
/// Thread safety: the tasks run on the storage's executor, one at a time; `abandon` in any thread.
/// Lifetime: owned by shared pointers only.
class WriteSession : public std::enable_shared_from_this<WriteSession> {
 public:
  struct Limits {
    std::chrono::nanoseconds lock_timeout = std::chrono::nanoseconds::max();
    std::uint64_t max_length = std::numeric_limits<std::int64_t>::max();  // Of a deferred length.
  };

  /// `operation` names it in errors.
  WriteSession(StorageCore& core, const UploadId& id, const WriterOptions& options,
               const char* operation, const Limits& limits);
  virtual ~WriteSession() = default;
  WriteSession(const WriteSession&) = delete;
  WriteSession& operator=(const WriteSession&) = delete;

  Executor& executor() const { return core_.turns.executor(); }

  /// Waits for the upload's turn and checks that it can be written. First of all, once; after an
  /// error the session is over.
  Task<void> open();
  /// write and close in one.
  Task<AppendResult> append(std::span<const std::byte> bytes);
  // As in UploadWriter.
  Task<bool> write(std::span<const std::byte> bytes);
  Task<bool> write(Buffer buffer);
  Task<AppendResult> commit();
  Task<AppendResult> close();
  std::uint64_t offset() const { return written_ + in_flight_bytes_; }
  std::stop_token stop_token() const { return taken_over_.get_token(); }

  bool has_ended() const { return result_ || failure_; }
  bool is_complete() const { return length_ && written_ >= *length_; }
  bool length_is_known() const { return length_.has_value(); }
  std::uint64_t uncommitted_bytes() const { return written_ - committed_; }
  /// What was acknowledged, committed or not.
  std::uint64_t answered_offset() const { return std::max(answered_, committed_); }

  /// What was written so far is acknowledged before it is committed: a later write that fails takes
  /// none of it back.
  void note_answered() { answered_ = written_; }

  /// A close that nobody waits for, prepared because a destructor asks for it.
  Scope::Prepared prepare_abandoning();
  /// A buffer may still be on its way then; the checksum is not asked any more.
  void abandon(const Scope::Prepared& prepared) noexcept;

 protected:
  const UploadId& id() const { return id_; }
  const WriterOptions& options() const { return options_; }
  const char* operation() const { return operation_; }

  /// In its turn: takes what else guards the upload, and tells where it stands. Throws `not_found`.
  /// A take-over ends the wait; then nothing is taken.
  virtual Task<UploadState> hold(TimePoint deadline) = 0;
  /// Writes all of `bytes`. `alone`: the commit that follows at once covers nothing else.
  virtual Task<void> write_piece(std::uint64_t offset, std::span<const std::byte> bytes,
                                 bool alone) = 0;
  /// Makes what was written stable and moves the offset, unless it stands elsewhere.
  virtual Task<OffsetMove> commit_to(std::uint64_t from, std::uint64_t to) = 0;
  /// The committed offset is acknowledged, and nothing was written beyond it.
  virtual Task<void> confirm() = 0;
  /// Gives back what `hold` took. Also when that failed.
  virtual void let_go() noexcept = 0;

 private:
  Task<void> begin();
  /// Whether so many bytes can be taken now; throws `length_exceeded` when there is no room.
  bool accepts(std::uint64_t bytes);
  Task<bool> write_all(std::span<const std::byte> bytes);
  Task<AppendStatus> write_pieces(std::span<const std::byte> bytes);
  void update_checksum(std::span<const std::byte> piece);
  Task<void> commit_written();
  Task<void> finish(AppendStatus status, bool keep);
  /// The error that a write threw ends the session, once what was answered is committed.
  Task<void> fail_write(std::exception_ptr error);
  /// In a catch block: the error that is in flight ends the session.
  void fail();
  /// Others may have the upload from now on.
  void leave();
  void on_taken_over();
  void note_taken_over();

  /// An end with all the memory that it takes to begin: one that found none then would leave the
  /// upload taken.
  Task<void> prepare_end(AppendStatus status);
  /// `lock` is that of the step.
  static Task<void> end(std::shared_ptr<WriteSession> session, Task<AsyncMutex::Guard> lock,
                        AppendStatus status);
  static Task<void> write_behind(std::shared_ptr<WriteSession> session, AsyncMutex::Guard step,
                                 Buffer buffer);

  StorageCore& core_;
  const UploadId id_;
  const WriterOptions options_;
  const char* const operation_;
  const Limits limits_;
  std::stop_source taken_over_;
  UploadTurns::Standing standing_;  // 0 once it is complete: then each newcomer is told so.
  UploadTurns::Turn turn_;
  AsyncMutex step_;  // A take-over or the writer's end may come while the owner's operation runs.
  std::mutex checksum_mutex_;
  bool is_abandoned_ = false;  // Guarded by that: then the checksum may be gone.
  bool ends_with_write_ = false;
  std::optional<std::uint64_t> length_;
  std::uint64_t committed_ = 0;
  std::uint64_t written_ = 0;
  std::uint64_t answered_ = 0;  // 0: nothing ahead of the commits.
  std::uint64_t in_flight_bytes_ = 0;
  std::optional<AppendResult> result_;  // Once ended: the answer of close,
  std::exception_ptr failure_;          // or its error.
};

}  // namespace tidemark::detail
