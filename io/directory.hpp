#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include <tidemark/io/file.hpp>

namespace tidemark {

/// Room on a file system, and what kind it is.
struct FilesystemStatus {
  std::uint64_t free_bytes = 0;  // For a process without privileges.
  bool is_network = false;       // NFS, SMB and their like, whose locks and syncs differ.
};

/// An open folder. It opens, makes and removes files directly beneath itself and nothing else: a
/// name is one component, and a symbolic link of that name is refused (ELOOP).
///
/// Errors: std::system_error; EINVAL for a name with a slash, an empty one, "." or "..", and for
/// opening what is no regular file (EISDIR for a folder to write to).
/// Thread safety: the tasks run on the directory's executor. Lifetime: it outlives its tasks; a
/// name lives until its await returns.
class Directory {
 public:
  enum class Open {
    existing,   // ENOENT when there is none.
    exclusive,  // Made now; EEXIST when there is one.
    always,     // Made when there is none.
  };

  Directory() = default;

  /// Opens `path`, which may itself be reached through links; `create` makes what is missing of it,
  /// stable, and the last component in any case.
  static Task<Directory> open(std::filesystem::path path, bool create);

  Executor& executor() const { return handle_.executor(); }
  const std::filesystem::path& path() const { return path_; }
  bool is_same(const Directory& other) const { return identity_.same_file(other.identity_); }

  /// Opens a regular file for reading and writing. A new file has `mode` less the umask.
  Task<File> open_file(const char* name, Open how, std::uint32_t mode = 0666);
  /// Opens a regular file for reading; ENXIO for a socket.
  Task<File> open_for_reading(const char* name);
  /// What stands at `name`, the link itself for a symbolic link; nothing when there is nothing.
  Task<std::optional<FileStatus>> status(const char* name);
  /// False when there was nothing to remove.
  Task<bool> unlink(const char* name);
  Task<void> rename(const char* from, const char* to);
  /// Gives the file a second name outside this folder; `to` must not exist.
  Task<void> link_to(const char* name, Directory& folder, const char* to);
  Task<std::vector<std::string>> list();
  /// Makes names that were added and removed stable.
  Task<void> sync();
  /// Makes everything on the folder's file system stable (syncfs).
  Task<void> sync_filesystem() { return handle_.sync_filesystem(); }
  Task<FilesystemStatus> filesystem();
  /// False when another folder, or none, now stands at the path that was opened.
  Task<bool> is_still_there();

 private:
  Task<File> open_beneath(const char* name, std::uint64_t flags, std::uint32_t mode);

  std::filesystem::path path_;
  File handle_;
  FileStatus identity_;
};

}  // namespace tidemark
