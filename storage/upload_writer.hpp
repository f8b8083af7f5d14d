#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <stop_token>

#include <tidemark/engine/task.hpp>
#include <tidemark/io/buffer.hpp>
#include <tidemark/storage/append.hpp>

namespace tidemark {

/// Writes one upload from its committed offset on, holding its lock across awaits.
///
///     auto writer = co_await storage.open_writer(id, {.offset = 0});
///     while (receive(buffer)) {
///       if (!co_await writer->write(std::move(buffer))) break;
///       if (++pieces % 32 == 0) co_await writer->commit();
///     }
///     AppendResult result = co_await writer->close();
///
/// A writer commits when it is asked to, and when it ends. What was written since is lost when the
/// process dies: commit every few MiB, or every second.
///
/// A writer ends when it is closed, taken over, or its task is asked to stop. After an end `write`
/// answers false, and `close` says why and where the upload stands.
///
/// Errors: StorageError; after one, the writer has ended: nothing more is written, what was
/// committed stays, and `close` throws it again. Only `length_exceeded` leaves it as it was.
/// Thread safety: one task at a time; bound to the storage's executor. Lifetime: may be destroyed
/// at any moment. That is a close whose answer nobody waits for: what is in flight is drained, the
/// contiguous bytes are committed (none with a checksum), and the lock is released, all in the
/// storage.
class UploadWriter {
 public:
  virtual ~UploadWriter() = default;

  /// Appends `bytes`, which stay alive until the await returns. False once the writer has ended.
  /// More bytes than the upload has room for throw `length_exceeded`, and none of them are kept.
  virtual Task<bool> write(std::span<const std::byte> bytes) = 0;
  /// The same for a buffer of the storage's pool. Returns while the buffer is still on its way, so
  /// that the next one can be received meanwhile; waits for the one before. Not copied where the
  /// upload stands at a multiple of 4096 and the buffer has at least 64 KiB, or its blocks were set
  /// aside because the length was known.
  virtual Task<bool> write(Buffer buffer) = 0;
  /// Makes what was written so far true: stable and acknowledged. With a checksum it commits
  /// nothing and answers where the upload stands.
  virtual Task<AppendResult> commit() = 0;
  /// Commits, and releases the upload. With a checksum: commits if it matches.
  virtual Task<AppendResult> close() = 0;
  /// Where the next byte goes.
  virtual std::uint64_t offset() const = 0;
  /// Fires when a newer writer takes over; whoever reads from a network for this writer can stop.
  virtual std::stop_token stop_token() const = 0;
};

}  // namespace tidemark
