#include <algorithm>
#include <cerrno>
#include <fcntl.h>
#include <sys/uio.h>
#include <system_error>

#include <tidemark/engine/assert.hpp>
#include <tidemark/engine/perform.hpp>
#include <tidemark/io/file.hpp>

namespace tidemark {
namespace {

// A bound on one system call, so that a stop or another task is never behind a longer one.
constexpr std::size_t k_max_call_bytes = std::size_t{8} << 20;

Operation operation_on(int fd, Operation::Kind kind) {
  Operation operation;
  operation.kind = kind;
  operation.fd = fd;
  return operation;
}

bool is_aligned(std::uint64_t offset, std::span<const std::byte> bytes) {
  return offset % k_direct_alignment == 0 && bytes.size() % k_direct_alignment == 0 &&
         reinterpret_cast<std::uintptr_t>(bytes.data()) % k_direct_memory_alignment == 0;
}

SystemTime to_time(const statx_timestamp& time) {
  constexpr std::int64_t k_most_seconds = 9'000'000'000'000;  // As many as SystemTime has room for.
  const std::int64_t seconds =
      std::clamp(std::int64_t{time.tv_sec}, -k_most_seconds, k_most_seconds);
  return SystemTime(std::chrono::seconds(seconds) + std::chrono::microseconds(time.tv_nsec / 1000));
}

}  // namespace

namespace detail {

std::int64_t check(std::int64_t result, const char* what) {
  if (result >= 0) return result;
  if (result == -ECANCELED) throw operation_canceled();
  throw std::system_error(static_cast<int>(-result), std::generic_category(), what);
}

FileStatus to_status(const struct statx& stat) {
  FileStatus status;
  status.device = (std::uint64_t{stat.stx_dev_major} << 32) | stat.stx_dev_minor;
  status.inode = stat.stx_ino;
  status.size = stat.stx_size;
  status.allocated_bytes = stat.stx_blocks * 512;  // Of 512 bytes, whatever the file system's own.
  status.links = stat.stx_nlink;
  status.mode = stat.stx_mode;
  status.modified_at = to_time(stat.stx_mtime);
  if ((stat.stx_mask & STATX_BTIME) != 0) status.born_at = to_time(stat.stx_btime);
  status.is_regular = S_ISREG(status.mode);
  return status;
}

}  // namespace detail

File::File(File&& other) noexcept
    : executor_(other.executor_),
      fd_(std::exchange(other.fd_, -1)),
      direct_(std::exchange(other.direct_, false)) {}

File& File::operator=(File&& other) noexcept {
  std::swap(executor_, other.executor_);
  std::swap(fd_, other.fd_);
  std::swap(direct_, other.direct_);
  return *this;
}

File::~File() {
  if (fd_ >= 0) executor_->environment().close_descriptor(fd_);
}

Task<std::size_t> File::read_some_at(std::uint64_t offset, std::span<std::byte> bytes) {
  set_cached();  // A direct read would have to be aligned.
  Operation operation = operation_on(fd_, Operation::Kind::read);
  operation.offset = offset;
  operation.buffer = bytes.data();
  operation.length = std::min(bytes.size(), k_max_call_bytes);
  std::int64_t result = -EAGAIN;
  while (result == -EAGAIN) result = co_await detail::perform(operation);
  co_return static_cast<std::size_t>(detail::check(result, "read"));
}

Task<std::size_t> File::read_at(std::uint64_t offset, std::span<std::byte> bytes) {
  std::size_t done = 0;
  while (done < bytes.size()) {
    const std::size_t got = co_await read_some_at(offset + done, bytes.subspan(done));
    if (got == 0) break;
    done += got;
  }
  co_return done;
}

Task<void> File::write_at(std::uint64_t offset, std::span<const std::byte> bytes, WriteMode mode) {
  const bool stable = mode == WriteMode::cached_stable || mode == WriteMode::direct_stable;
  bool direct = mode == WriteMode::direct || mode == WriteMode::direct_stable;
  TIDEMARK_ASSERT(!direct || is_aligned(offset, bytes), "a direct write is aligned");
  while (!bytes.empty()) {
    direct = direct && try_direct();
    if (!direct) set_cached();
    Operation operation = operation_on(fd_, Operation::Kind::write);
    operation.offset = offset;
    operation.const_buffer = bytes.data();
    operation.length = std::min(bytes.size(), k_max_call_bytes);
    operation.flags = stable ? RWF_DSYNC : 0;
    const std::int64_t result = co_await detail::perform_to_end(operation);
    if (result == -EAGAIN) continue;
    if (result == -EINVAL && direct) {  // Refused here only, or a device of larger blocks.
      direct = false;
      continue;
    }
    const auto written = static_cast<std::size_t>(detail::check(result, "write"));
    if (written == 0) detail::check(-EIO, "write of no bytes");
    TIDEMARK_ASSERT(written <= bytes.size(), "no more is written than was given");
    offset += written;
    bytes = bytes.subspan(written);
    // A short direct write can end between two blocks; the rest takes the other way.
    direct = direct && offset % k_direct_alignment == 0;
  }
}

bool File::try_direct() {
  if (direct_) return true;
  try {
    executor_->environment().set_direct(fd_, true);
  } catch (const std::system_error& error) {
    if (error.code() != std::errc::invalid_argument) throw;
    return false;
  }
  direct_ = true;
  return true;
}

void File::set_cached() {
  if (!direct_) return;
  executor_->environment().set_direct(fd_, false);
  direct_ = false;
}

Task<void> File::sync_data() {
  Operation operation = operation_on(fd_, Operation::Kind::sync);
  operation.flags = 1;
  const std::int64_t result = co_await detail::perform_to_end(operation);
  detail::check(result, "fdatasync");
}

Task<void> File::sync_filesystem() {
  const std::int64_t result =
      co_await detail::perform_to_end(operation_on(fd_, Operation::Kind::sync_filesystem));
  detail::check(result, "syncfs");
}

Task<bool> File::allocate(std::uint64_t length) {
  Operation operation = operation_on(fd_, Operation::Kind::allocate);
  operation.length = length;
  const std::int64_t result = co_await detail::perform_to_end(operation);
  if (result == -EOPNOTSUPP) co_return false;
  detail::check(result, "fallocate");
  co_return true;
}

Task<void> File::truncate(std::uint64_t length) {
  Operation operation = operation_on(fd_, Operation::Kind::truncate);
  operation.length = length;
  const std::int64_t result = co_await detail::perform_to_end(operation);
  detail::check(result, "ftruncate");
}

Task<std::uint64_t> File::copy_range_to(std::uint64_t offset, File& to, std::uint64_t to_offset,
                                        std::uint64_t length) {
  Operation operation = operation_on(fd_, Operation::Kind::copy_range);
  operation.offset = offset;
  operation.other_fd = to.fd_;
  operation.other_offset = to_offset;
  operation.length = length;
  const std::int64_t result = co_await detail::perform_to_end(operation);
  co_return static_cast<std::uint64_t>(detail::check(result, "copy_file_range"));
}

Task<FileStatus> File::status() {
  struct statx stat {};
  Operation operation = operation_on(fd_, Operation::Kind::stat);
  operation.stat = &stat;
  const std::int64_t result = co_await detail::perform_to_end(operation);
  detail::check(result, "statx");
  co_return detail::to_status(stat);
}

Task<void> File::change_mode(std::uint32_t mode) {
  Operation operation = operation_on(fd_, Operation::Kind::change_mode);
  operation.mode = mode;
  const std::int64_t result = co_await detail::perform_to_end(operation);
  detail::check(result, "fchmod");
}

Task<void> File::close() {
  File closing = std::move(*this);  // Its end closes what could not even be submitted.
  const std::int64_t result =
      co_await detail::perform_to_end(operation_on(closing.fd_, Operation::Kind::close));
  closing.fd_ = -1;
  detail::check(result, "close");
}

}  // namespace tidemark
