#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <optional>
#include <string>

#include <tidemark/storage/append.hpp>

namespace tidemark {

/// Where a SQLiteStorage is, and its bounds. The defaults suit a server. Relative paths are seen
/// from where the process is when the storage is opened.
struct StorageOptions {
  std::filesystem::path db_path = "uploads.db";
  /// The folder of the data files; made when missing. It and the database are on local disks.
  std::filesystem::path upload_dir = "uploads";
  /// Where an operation names none. `none` also stops the database from syncing.
  Durability durability = Durability::full;

  // Bounds. What a new upload would exceed of the first three is `quota_exceeded`.
  std::uint64_t max_upload_bytes = std::numeric_limits<std::int64_t>::max();  // Of one upload.
  std::size_t max_metadata_bytes = std::size_t{64} << 10;  // Of one upload, as stored.
  /// The sum of the declared lengths of unfinished uploads; none: no bound.
  std::optional<std::uint64_t> max_reserved_bytes = std::nullopt;
  /// What create_upload must find free on the disk beside the declared length; else `no_space`.
  std::uint64_t min_free_bytes = std::uint64_t{16} << 20;
  /// How long each wait for another writer of the upload may last, first for one of this process,
  /// then for another process; then `lock_timeout`.
  std::chrono::nanoseconds lock_timeout = std::chrono::seconds(30);
  /// How long an operation waits while another process locks the database; then `busy`.
  std::chrono::nanoseconds commit_timeout = std::chrono::seconds(30);

  /// Locks and syncs of network file systems keep no promises; else they are refused.
  bool allow_network_filesystem = false;
  /// Of sqlite3_vfs_register; empty: SQLite's default.
  std::string sqlite_vfs = {};
};

}  // namespace tidemark
