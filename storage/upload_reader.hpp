#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include <tidemark/engine/task.hpp>

namespace tidemark {

/// Reads one upload's committed bytes, without a lock, also while it still grows.
///
/// SQLiteStorage's reads the file that the upload had when the reader was opened: an upload deleted
/// meanwhile can still be read to its last committed byte. The default one then throws `not_found`,
/// and reads everything before `offset` as well.
/// Errors: StorageError. Thread safety: one task at a time; bound to the storage's executor.
class UploadReader {
 public:
  virtual ~UploadReader() = default;

  /// Reads from `offset` until `bytes` is full or the committed offset is reached; gives how many.
  virtual Task<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> bytes) = 0;
  /// The committed offset as last seen by this reader.
  virtual std::uint64_t committed_offset() const = 0;
};

}  // namespace tidemark
