#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace tidemark {

/// What an acknowledged offset means.
enum class Durability {
  /// Data, then row, both stable before the answer. Completion is always so, but with `none`.
  full,
  /// Answered once written; data and then row are made stable in the background, within 8 MiB or
  /// 1 s. A crash may take an upload back, never leave an offset ahead of its bytes; so may a full
  /// disk, or a database that another process keeps locked for longer than `commit_timeout`.
  /// An upload of deferred length is written as with `full`.
  ordered,
  /// Nothing is synced: for tests and for folders that do not survive a restart in any case. A
  /// storage opened so never syncs its database, whatever an operation asks for.
  none,
};

enum class AppendStatus {
  committed,
  offset_conflict,    // The upload does not stand at the offset that was expected.
  checksum_mismatch,  // Nothing of the bytes was kept.
  taken_over,         // A newer writer of this storage asked for the upload.
  canceled,           // The caller asked to stop; without a checksum, what had arrived was kept.
};

/// What became of an append or a writer. `offset` is always the true current one.
struct AppendResult {
  AppendStatus status = AppendStatus::committed;
  std::uint64_t offset = 0;
  bool completed = false;

  friend bool operator==(const AppendResult&, const AppendResult&) = default;
};

/// A digest that the caller computes with its own library over the bytes of one append or writer,
/// on their way to the disk. Called on the storage's executor; a copy of the bytes is not made.
class Checksum {
 public:
  virtual ~Checksum() = default;
  virtual void update(std::span<const std::byte> bytes) = 0;
  /// Whether the bytes so far are the expected ones. Asked once, before anything is committed.
  virtual bool matches() = 0;
};

struct AppendOptions {
  std::optional<Durability> durability = {};  // None: the storage's.
  Checksum* checksum = nullptr;               // Lives until the append has answered.
};

struct WriterOptions {
  std::optional<std::uint64_t> offset = {};  // Where the upload is expected; none: anywhere.
  /// End whoever holds or waits for this upload here, but for those who have committed more than
  /// `offset`, or expect more: who comes too late to write ends nobody.
  bool take_over = false;
  std::optional<Durability> durability = {};  // None: the storage's.
  /// With one, nothing is committed before `close`, and then only if it matches. Lives until the
  /// writer has closed or is destroyed.
  Checksum* checksum = nullptr;
};

}  // namespace tidemark
