#pragma once

#include <mutex>
#include <string>

#include <sqlite3.h>

namespace tidemark::detail {

/// Disk space set aside beside the database, as a file called `<database>-reserve`, so that a row
/// can still be deleted when the disk is full. It goes through SQLite's VFS, as the database does.
///
/// Thread safety: any thread. Errors: none; without the file there is just no reserve.
class ReserveFile {
 public:
  /// Room for what a checkpoint adds to the database, whose log has 4 MiB most of the time.
  static constexpr int k_bytes = 5 << 20;

  /// `vfs` is a registered name, or null for the default.
  ReserveFile(const std::string& database_path, const char* vfs);

  /// Makes the file unless it is there.
  void set_aside() noexcept;
  /// Gives the space back; false when there is none. True also when what set_aside could not fill
  /// was given back since the last call: whoever met it on a full disk finds room again.
  bool release() noexcept;

 private:
  bool exists() noexcept;
  bool write();

  std::mutex mutex_;
  bool gave_back_ = false;
  sqlite3_vfs* const vfs_;
  std::string path_;  // As the VFS wants it.
};

}  // namespace tidemark::detail
