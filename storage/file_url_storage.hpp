#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include <tidemark/engine/async_mutex.hpp>
#include <tidemark/engine/engine.hpp>
#include <tidemark/storage/url_storage.hpp>

namespace tidemark {

/// URLs in one JSON file, shared with other objects, processes and the Python package
/// `resumable-upload`, which all see a change at once and lose none.
///
/// Format: an object of strings as Python's json.dump(urls, file, indent=2) writes it. Beside the
/// file stand `<path>.lock`, locked (flock) shared to read and exclusively to change and never
/// removed, and during a change `<path>.tmp`. A change writes that anew, syncs it, renames it over
/// the file and syncs the folder, so a crash at any moment leaves the old or the new content; what
/// it leaves of the temporary file goes with the next change. The file's mode is kept, its owner is
/// not; a new file has 0666 less the umask. A missing file is an empty store.
///
/// The folder must exist and may be reached through links, but a symbolic link at `path` itself is
/// refused: a change would cut it off from its target, which others may change under another lock.
///
/// Errors, each with the path in its message: `corrupt` for a file that is torn or foreign, which
/// stays as it is; `quota_exceeded` beyond k_max_bytes; `lock_timeout` after k_lock_timeout;
/// `invalid_argument` for text that is not UTF-8; `no_space`; `io_error`, after which a change may
/// have been made or not.
/// Each operation reads the whole file: meant for thousands of uploads, not for millions.
/// Thread safety: bound to one executor of the engine, may be awaited anywhere.
class FileURLStorage final : public URLStorage {
 public:
  static constexpr std::uint64_t k_max_bytes = std::uint64_t{16} << 20;
  static constexpr std::chrono::seconds k_lock_timeout{30};

  /// Does no I/O. A relative path is relative to the present working folder. Throws StorageError
  /// (invalid_argument) when it ends in no name.
  explicit FileURLStorage(Engine& engine, const std::filesystem::path& path = ".tus_urls.json");

  Executor& executor() { return executor_; }
  const std::filesystem::path& path() const { return path_; }

  Task<std::optional<std::string>> get_url(std::string fingerprint) override;
  Task<void> set_url(std::string fingerprint, std::string url) override;
  Task<void> remove_url(std::string fingerprint) override;

 private:
  class Session;

  Executor& executor_;
  const std::filesystem::path path_;
  AsyncMutex turn_;
  TimePoint free_until_;  // For others to take the lock before we do again.
};

}  // namespace tidemark
