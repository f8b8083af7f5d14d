#pragma once

#include <cstddef>
#include <cstdint>
#include <unordered_map>

#include <tidemark/io/file.hpp>
#include <tidemark/storage/upload_id.hpp>

namespace tidemark::detail {

/// Up to which offset this process has made which files stable (A4), so that it need not sync them
/// whole again. Forgetting an entry costs a sync; so a full table forgets any one.
///
/// Thread safety: one executor.
class StableFiles {
 public:
  static constexpr std::size_t k_max_files = 4096;

  /// Whether exactly `offset` bytes of the file, and its name, were made stable here.
  bool covers(const UploadId& id, const FileStatus& file, std::uint64_t offset) const;
  void note(const UploadId& id, const FileStatus& file, std::uint64_t offset);
  void forget(const UploadId& id) { entries_.erase(id); }

  /// Bytes were written here beyond the offset, until the next note: who fails to sync the file may
  /// lose them.
  void note_chunk(const UploadId& id);
  bool has_chunks(const UploadId& id, const FileStatus& file) const;

  /// A sync of bytes that an earlier operation or another writer wrote has failed: the kernel may
  /// have dropped them, and tells nobody a second time.
  void poison(const UploadId& id, const FileStatus& file);
  bool is_poisoned(const UploadId& id, const FileStatus& file) const;

 private:
  struct Entry {
    std::uint64_t device;
    std::uint64_t inode;
    SystemTime born_at;  // Inodes are used again.
    std::uint64_t offset;
    bool poisoned = false;
    bool has_chunks = false;

    bool is_of(const FileStatus& file) const {
      return device == file.device && inode == file.inode && born_at == file.born_at;
    }
  };
  const Entry* find(const UploadId& id, const FileStatus& file) const;

  std::unordered_map<UploadId, Entry> entries_;
};

}  // namespace tidemark::detail
