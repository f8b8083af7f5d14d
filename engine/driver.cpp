#include <algorithm>
#include <cerrno>
#include <dirent.h>
#include <fcntl.h>
#include <limits>
#include <linux/openat2.h>
#include <new>
#include <string_view>
#include <sys/file.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <system_error>
#include <unistd.h>
#include <utility>

#include <tidemark/engine/driver.hpp>
#include <tidemark/engine/thread_driver.hpp>
#include <tidemark/engine/uring_driver.hpp>

namespace tidemark {

void OperationQueue::push(Operation& operation) {
  operation.next = nullptr;
  (head_ == nullptr ? head_ : tail_->next) = &operation;
  tail_ = &operation;
  ++size_;
}

Operation* OperationQueue::pop() {
  Operation* const operation = head_;
  if (operation == nullptr) return nullptr;
  head_ = operation->next;
  --size_;
  return operation;
}

bool OperationQueue::remove(Operation& operation) {
  Operation* previous = nullptr;
  for (Operation* here = head_; here != nullptr; previous = std::exchange(here, here->next)) {
    if (here != &operation) continue;
    (previous == nullptr ? head_ : previous->next) = operation.next;
    if (tail_ == &operation) tail_ = previous;
    --size_;
    return true;
  }
  return false;
}

namespace detail {
namespace {

std::int64_t open_file(const Operation& operation) {
  static_assert(sizeof(Operation::OpenHow) == sizeof(open_how));
  const long fd =
      ::syscall(SYS_openat2, operation.fd, operation.path, &operation.how, sizeof operation.how);
  if (fd >= 0 || (errno != ENOSYS && errno != EPERM)) return fd;
  // Before Linux 5.6, or filtered. A name that must not be a link has one component and comes with
  // O_NOFOLLOW, which does the same.
  const int flags = static_cast<int>(operation.how.flags);
  return ::openat(operation.fd, operation.path, flags, static_cast<mode_t>(operation.how.mode));
}

/// Adds what is left to read of `folder`. Gives the error, or 0.
int read_names(DIR* folder, std::vector<std::string>& names) {
  try {
    errno = 0;
    while (const dirent* entry = ::readdir(folder)) {
      const std::string_view name = entry->d_name;
      if (name != "." && name != "..") names.emplace_back(name);
      errno = 0;
    }
    return errno;
  } catch (const std::bad_alloc&) {
    return ENOMEM;
  }
}

std::int64_t list_directory(const Operation& operation) {
  // A descriptor of its own: reading moves the position, and closedir closes it.
  const int fd = ::openat(operation.fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return -1;
  DIR* const folder = ::fdopendir(fd);
  if (folder == nullptr) {
    ::close(fd);
    return -1;
  }
  const int error = read_names(folder, *operation.names);
  ::closedir(folder);
  errno = error;
  return error == 0 ? 0 : -1;
}

std::int64_t copy_range(const Operation& operation) {
  auto from = static_cast<off64_t>(operation.offset);
  auto to = static_cast<off64_t>(operation.other_offset);
  return ::copy_file_range(operation.fd, &from, operation.other_fd, &to, operation.length, 0);
}

std::int64_t call(const Operation& operation) {
  const auto offset = static_cast<off_t>(operation.offset);
  const auto length = static_cast<off_t>(operation.length);
  switch (operation.kind) {
    case Operation::Kind::read:
      return ::pread(operation.fd, operation.buffer, operation.length, offset);
    case Operation::Kind::write: {
      const iovec part{const_cast<void*>(operation.const_buffer), operation.length};
      return ::pwritev2(operation.fd, &part, 1, offset, static_cast<int>(operation.flags));
    }
    case Operation::Kind::sync:
      return operation.flags == 0 ? ::fsync(operation.fd) : ::fdatasync(operation.fd);
    case Operation::Kind::sync_filesystem:
      return ::syncfs(operation.fd);
    case Operation::Kind::open:
      return open_file(operation);
    case Operation::Kind::close:
      ::flock(operation.fd, LOCK_UN);  // As Environment::close_descriptor.
      // The descriptor is gone after an interruption too; closing again might hit its successor.
      return ::close(operation.fd) == 0 || errno == EINTR ? 0 : -1;
    case Operation::Kind::stat:
      return ::statx(operation.fd, operation.path, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW,
                     STATX_BASIC_STATS | STATX_BTIME, operation.stat);
    case Operation::Kind::stat_filesystem:
      return ::fstatfs(operation.fd, operation.filesystem);
    case Operation::Kind::allocate:
      return ::fallocate(operation.fd, FALLOC_FL_KEEP_SIZE, offset, length);
    case Operation::Kind::truncate:
      return ::ftruncate(operation.fd, length);
    case Operation::Kind::change_mode:
      return ::fchmod(operation.fd, operation.mode);
    case Operation::Kind::unlink:
      return ::unlinkat(operation.fd, operation.path, 0);
    case Operation::Kind::rename:
      return ::renameat(operation.fd, operation.path, operation.other_fd, operation.other_path);
    case Operation::Kind::link:
      return ::linkat(operation.fd, operation.path, operation.other_fd, operation.other_path, 0);
    case Operation::Kind::make_directory:
      return ::mkdirat(operation.fd, operation.path, operation.mode);
    case Operation::Kind::list_directory:
      return list_directory(operation);
    case Operation::Kind::copy_range:
      return copy_range(operation);
    case Operation::Kind::lock:
      return ::flock(operation.fd, static_cast<int>(operation.flags));
  }
  errno = EINVAL;
  return -1;
}

}  // namespace

void perform_blocking(Operation& operation) noexcept {
  const std::int64_t result = call(operation);
  operation.result = result < 0 ? -errno : result;
}

namespace {

/// The status of a file whose name and inode the kernel has in memory; false when it has not (or
/// is older than Linux 5.12): a name that must be looked up on the disk may wait for it.
bool stat_cached(Operation& operation) noexcept {
  open_how how{};
  how.flags = O_PATH | O_NOFOLLOW | O_CLOEXEC;
  how.resolve = RESOLVE_CACHED;
  const long fd = ::syscall(SYS_openat2, operation.fd, operation.path, &how, sizeof how);
  if (fd < 0) return false;
  Operation of_file;
  of_file.kind = Operation::Kind::stat;
  of_file.fd = static_cast<int>(fd);
  of_file.stat = operation.stat;
  perform_blocking(of_file);
  operation.result = of_file.result;
  ::close(of_file.fd);
  return true;
}

}  // namespace

bool perform_at_once(Operation& operation) noexcept {
  // The largest of all would mean the position of the description, which others move.
  constexpr std::uint64_t k_max_offset = std::numeric_limits<off_t>::max();
  if (std::max(operation.offset, operation.other_offset) > k_max_offset) {
    operation.result = -EINVAL;
    return true;
  }
  switch (operation.kind) {
    case Operation::Kind::lock:
      if ((operation.flags & (LOCK_NB | LOCK_UN)) == 0) return false;
      perform_blocking(operation);
      return true;
    case Operation::Kind::stat:
      if (operation.path[0] != '\0') return stat_cached(operation);
      perform_blocking(operation);  // Of an open file: the inode is in memory.
      return true;
    default:
      return false;
  }
}

__kernel_timespec time_left(TimePoint deadline, TimePoint now) {
  const std::chrono::nanoseconds left = std::max(deadline, now) - now;
  const auto seconds = std::chrono::floor<std::chrono::seconds>(left);
  return {seconds.count(), (left - seconds).count()};
}

std::unique_ptr<Driver> make_real_driver(const DriverOptions& options, Environment& environment) {
  if (options.kind == DriverKind::threads) {
    return std::make_unique<ThreadDriver>(options.worker_threads, environment);
  }
  try {
    auto driver = std::make_unique<UringDriver>(options, environment);
    if (options.kind == DriverKind::automatic) {
      environment.log(LogLevel::info, "driver: io_uring");
    }
    return driver;
  } catch (const std::system_error& error) {
    if (options.kind == DriverKind::uring) throw;
    environment.log(LogLevel::warning, std::string("driver: threads, because ") + error.what());
    return std::make_unique<ThreadDriver>(options.worker_threads, environment);
  }
}

}  // namespace detail
}  // namespace tidemark
