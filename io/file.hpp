#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include <tidemark/engine/driver.hpp>
#include <tidemark/engine/task.hpp>

namespace tidemark {

/// What the file system says of a file.
struct FileStatus {
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
  std::uint64_t size = 0;
  std::uint64_t allocated_bytes = 0;  // Blocks on the disk, also behind the end.
  std::uint64_t links = 0;
  std::uint32_t mode = 0;  // Kind and permissions, as st_mode.
  SystemTime modified_at;
  SystemTime born_at;  // The epoch where the file system does not tell.
  bool is_regular = false;

  bool same_file(const FileStatus& other) const {
    return device == other.device && inode == other.inode;
  }
};

/// How a write treats the page cache and the disk. For the direct modes, offset and length are
/// multiples of k_direct_alignment and the memory of k_direct_memory_alignment.
enum class WriteMode {
  cached,         // Into the page cache; `sync_data` makes it stable.
  cached_stable,  // The same, and stable when it returns (RWF_DSYNC).
  direct,         // Past the page cache (O_DIRECT) where the file system can; `sync_data` as well.
  direct_stable,  // The same, and stable when it returns.
};
inline constexpr std::size_t k_direct_alignment = 4096;
inline constexpr std::size_t k_direct_memory_alignment = 512;

/// An open file. Offsets and lengths are in bytes.
///
/// Errors: std::system_error with the system's code. A stopped read throws
/// std::errc::operation_canceled; writes and syncs run to their end, since their effect could not
/// be taken back.
/// Thread safety: the tasks run on the file's executor; the destructor may run in any thread, when
/// no task of the file runs. Lifetime: a file outlives its tasks, and spans outlive their await.
class File {
 public:
  File() = default;
  /// Owns `fd`, which the executor's driver opened.
  File(Executor& executor, int fd) : executor_(&executor), fd_(fd) {}
  File(File&& other) noexcept;
  File& operator=(File&& other) noexcept;
  /// Closes in place. The last close of an unlinked file frees its blocks: await `close` for those.
  ~File();

  bool is_open() const { return fd_ >= 0; }
  int native_handle() const { return fd_; }
  Executor& executor() const { return *executor_; }

  /// Reads what one call gives; 0 at the end of the file. Not beside a direct write of this object.
  Task<std::size_t> read_some_at(std::uint64_t offset, std::span<std::byte> bytes);
  /// Reads until `bytes` is full or the file ends; gives how much.
  Task<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> bytes);
  /// Writes all of `bytes` or throws. A direct write has no other write beside it.
  Task<void> write_at(std::uint64_t offset, std::span<const std::byte> bytes,
                      WriteMode mode = WriteMode::cached);
  /// Makes data and size stable (fdatasync).
  Task<void> sync_data();
  /// Makes everything on the file's file system stable (syncfs).
  Task<void> sync_filesystem();
  /// Reserves blocks for the first `length` bytes, at least one, without changing the size. False
  /// where the file system cannot.
  Task<bool> allocate(std::uint64_t length);
  Task<void> truncate(std::uint64_t length);
  /// Copies up to `length` bytes inside the kernel, sharing blocks where it can; gives how many.
  Task<std::uint64_t> copy_range_to(std::uint64_t offset, File& to, std::uint64_t to_offset,
                                    std::uint64_t length);
  Task<FileStatus> status();
  /// Sets the permissions, whatever the umask.
  Task<void> change_mode(std::uint32_t mode);
  /// Closes on a worker thread.
  Task<void> close();

 private:
  bool try_direct();
  void set_cached();

  Executor* executor_ = nullptr;
  int fd_ = -1;
  bool direct_ = false;  // O_DIRECT is set on the description.
};

namespace detail {
/// Gives `result` back, or throws it as the error of the system call `what`.
std::int64_t check(std::int64_t result, const char* what);
FileStatus to_status(const struct statx& stat);
}  // namespace detail

}  // namespace tidemark
