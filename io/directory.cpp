#include <algorithm>
#include <array>
#include <cerrno>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <string_view>

#include <tidemark/engine/perform.hpp>
#include <tidemark/io/directory.hpp>

namespace tidemark {
namespace {

// From the kernel's sources; linux/magic.h does not have them all.
constexpr std::uint64_t k_cifs_magic = 0xFF534D42;
constexpr std::uint64_t k_ceph_magic = 0x00C36400;
constexpr std::array<std::uint64_t, 7> k_network_filesystems = {
    NFS_SUPER_MAGIC, SMB_SUPER_MAGIC, SMB2_SUPER_MAGIC, k_cifs_magic,
    AFS_SUPER_MAGIC, k_ceph_magic,    V9FS_MAGIC,
};

void check_name(const char* name) {
  const std::string_view text(name);
  const bool bad = text.empty() || text == "." || text == ".." || text.find('/') != text.npos;
  if (bad) detail::check(-EINVAL, "a file's name is one path component");
}

/// What the file system is asked about one name runs to its end: its effect could not be undone.
Task<std::int64_t> on_name(Operation::Kind kind, int fd, const char* name) {
  Operation operation;
  operation.kind = kind;
  operation.fd = fd;
  operation.path = name;
  co_return co_await detail::perform_to_end(operation);
}

Task<int> open_path(int fd, const char* path, Operation::OpenHow how) {
  Operation operation;
  operation.kind = Operation::Kind::open;
  operation.fd = fd;
  operation.path = path;
  operation.how = how;
  const std::int64_t result = co_await detail::perform_to_end(operation);
  co_return static_cast<int>(detail::check(result, path));
}

Task<void> sync_parent(const std::filesystem::path& path) {
  std::filesystem::path parent = path.parent_path();
  if (parent.empty()) parent = ".";
  Directory above = co_await Directory::open(std::move(parent), false);
  co_await above.sync();
}

/// The same for a folder that was found, whose maker may have died before it was stable.
Task<void> sync_parent_if_possible(const std::filesystem::path& path) {
  try {
    co_await sync_parent(path);
  } catch (const std::system_error& error) {
    // A parent that may only be passed through, or that has nothing to make stable (autofs).
    const bool impossible =
        error.code() == std::errc::permission_denied || error.code() == std::errc::invalid_argument;
    if (!impossible) throw;
  }
}

Task<void> make_directories(std::filesystem::path path) {
  if (!path.has_filename()) path = path.parent_path();  // Without a slash at the end.
  std::filesystem::path prefix;
  for (const auto& component : path) {
    prefix /= component;
    if (component == "/") continue;
    Operation operation;
    operation.kind = Operation::Kind::make_directory;
    operation.fd = AT_FDCWD;
    operation.path = prefix.c_str();
    operation.mode = 0777;
    const std::int64_t result = co_await detail::perform_to_end(operation);
    if (result != -EEXIST) {
      detail::check(result, prefix.c_str());
      co_await sync_parent(prefix);
    } else if (prefix == path) {
      co_await sync_parent_if_possible(prefix);
    }
  }
}

}  // namespace

Task<Directory> Directory::open(std::filesystem::path path, bool create) {
  Executor* const executor = co_await current_executor();
  if (create) co_await make_directories(path);
  Operation::OpenHow how;
  how.flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC;
  const int fd = co_await open_path(AT_FDCWD, path.c_str(), how);
  Directory directory;
  directory.handle_ = File(*executor, fd);
  directory.path_ = std::move(path);
  directory.identity_ = co_await directory.handle_.status();
  co_return directory;
}

Task<File> Directory::open_beneath(const char* name, std::uint64_t flags, std::uint32_t mode) {
  check_name(name);
  Operation::OpenHow how;
  how.flags = flags | O_CLOEXEC | O_NOFOLLOW;
  how.mode = (flags & O_CREAT) != 0 ? mode : 0;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS;
  const int fd = co_await open_path(handle_.native_handle(), name, how);
  File file(executor(), fd);
  const FileStatus status = co_await file.status();
  if (!status.is_regular) detail::check(-EINVAL, "not a regular file");
  co_return file;
}

Task<File> Directory::open_file(const char* name, Open how, std::uint32_t mode) {
  std::uint64_t flags = O_RDWR;
  if (how != Open::existing) flags |= O_CREAT;
  if (how == Open::exclusive) flags |= O_EXCL;
  return open_beneath(name, flags, mode);
}

Task<File> Directory::open_for_reading(const char* name) {
  // To open a pipe for reading would wait for its writer.
  File file = co_await open_beneath(name, O_RDONLY | O_NONBLOCK, 0);
  executor().environment().set_blocking(file.native_handle());
  co_return file;
}

Task<std::optional<FileStatus>> Directory::status(const char* name) {
  check_name(name);
  struct statx stat {};
  Operation operation;
  operation.kind = Operation::Kind::stat;
  operation.fd = handle_.native_handle();
  operation.path = name;
  operation.stat = &stat;
  const std::int64_t result = co_await detail::perform_to_end(operation);
  if (result == -ENOENT) co_return std::nullopt;
  detail::check(result, "statx");
  co_return detail::to_status(stat);
}

Task<bool> Directory::unlink(const char* name) {
  check_name(name);
  const std::int64_t result =
      co_await on_name(Operation::Kind::unlink, handle_.native_handle(), name);
  if (result == -ENOENT) co_return false;
  detail::check(result, "unlink");
  co_return true;
}

Task<void> Directory::rename(const char* from, const char* to) {
  check_name(from);
  check_name(to);
  Operation operation;
  operation.kind = Operation::Kind::rename;
  operation.fd = handle_.native_handle();
  operation.path = from;
  operation.other_fd = handle_.native_handle();
  operation.other_path = to;
  const std::int64_t result = co_await detail::perform_to_end(operation);
  detail::check(result, "rename");
}

Task<void> Directory::link_to(const char* name, Directory& folder, const char* to) {
  check_name(name);
  check_name(to);
  Operation operation;
  operation.kind = Operation::Kind::link;
  operation.fd = handle_.native_handle();
  operation.path = name;
  operation.other_fd = folder.handle_.native_handle();
  operation.other_path = to;
  const std::int64_t result = co_await detail::perform_to_end(operation);
  detail::check(result, "link");
}

Task<std::vector<std::string>> Directory::list() {
  std::vector<std::string> names;
  Operation operation;
  operation.kind = Operation::Kind::list_directory;
  operation.fd = handle_.native_handle();
  operation.names = &names;
  const std::int64_t result = co_await detail::perform_to_end(operation);
  detail::check(result, "readdir");
  co_return names;
}

Task<void> Directory::sync() {
  Operation operation;
  operation.kind = Operation::Kind::sync;
  operation.fd = handle_.native_handle();
  const std::int64_t result = co_await detail::perform_to_end(operation);
  detail::check(result, "fsync of a folder");
}

Task<FilesystemStatus> Directory::filesystem() {
  struct statfs stat {};
  Operation operation;
  operation.kind = Operation::Kind::stat_filesystem;
  operation.fd = handle_.native_handle();
  operation.filesystem = &stat;
  const std::int64_t result = co_await detail::perform_to_end(operation);
  detail::check(result, "statfs");
  const auto type = static_cast<std::uint32_t>(stat.f_type);
  FilesystemStatus status;
  status.free_bytes = stat.f_bavail * static_cast<std::uint64_t>(stat.f_frsize);
  status.is_network = std::find(k_network_filesystems.begin(), k_network_filesystems.end(), type) !=
                      k_network_filesystems.end();
  co_return status;
}

Task<bool> Directory::is_still_there() {
  struct statx stat {};
  Operation operation;
  operation.kind = Operation::Kind::stat;
  operation.fd = AT_FDCWD;
  const std::filesystem::path through_links = path_ / ".";
  operation.path = through_links.c_str();
  operation.stat = &stat;
  const std::int64_t result = co_await detail::perform_to_end(operation);
  if (result == -ENOENT || result == -ENOTDIR || result == -ELOOP) co_return false;
  detail::check(result, "statx");
  co_return detail::to_status(stat).same_file(identity_);
}

}  // namespace tidemark
