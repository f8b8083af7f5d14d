#pragma once

#include <cstddef>
#include <cstdint>
#include <linux/time_types.h>
#include <memory>
#include <optional>
#include <string>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <vector>

#include <tidemark/engine/environment.hpp>

namespace tidemark {

/// One request to the operating system, as the driver sees it. It lives in the awaiting coroutine's
/// frame from `Driver::submit` until it completes; what it points to lives as long.
///
/// `result` is what the system call of the same name returns, with -errno in place of -1.
struct Operation {
  enum class Kind : std::uint8_t {
    read,             // fd, buffer, length, offset
    write,            // fd, const_buffer, length, offset, flags (RWF_*)
    sync,             // fd, flags (1: data only, as fdatasync)
    sync_filesystem,  // fd (syncfs of the file system that holds it)
    open,             // fd (folder), path, how (openat2)
    close,            // fd
    stat,             // fd, path ("" for fd itself), stat; a symbolic link is not followed
    stat_filesystem,  // fd, filesystem (fstatfs)
    allocate,         // fd, offset, length (fallocate with FALLOC_FL_KEEP_SIZE)
    truncate,         // fd, length
    change_mode,      // fd, mode (fchmod)
    unlink,           // fd (folder), path
    rename,           // fd, path to other_fd, other_path
    link,             // fd, path to other_fd, other_path
    make_directory,   // fd, path, mode
    list_directory,   // fd, names (every entry but . and ..)
    copy_range,       // fd, offset to other_fd, other_offset, length (copy_file_range)
    lock,             // fd, flags (LOCK_*, always with LOCK_NB unless LOCK_UN)
  };

  /// As struct open_how of linux/openat2.h.
  struct OpenHow {
    std::uint64_t flags = 0;    // O_*
    std::uint64_t mode = 0;     // Of a file that O_CREAT makes.
    std::uint64_t resolve = 0;  // RESOLVE_*
  };

  Kind kind = Kind::read;
  int fd = -1;
  int other_fd = -1;
  std::uint32_t flags = 0;
  std::uint32_t mode = 0;
  void* buffer = nullptr;
  const void* const_buffer = nullptr;
  std::uint64_t length = 0;
  std::uint64_t offset = 0;
  std::uint64_t other_offset = 0;
  OpenHow how;
  const char* path = "";
  const char* other_path = "";
  struct statx* stat = nullptr;
  struct statfs* filesystem = nullptr;
  std::vector<std::string>* names = nullptr;

  std::int64_t result = 0;
  /// Called once, on the executor's thread, from `Driver::wait`.
  void (*complete)(Operation&) noexcept = nullptr;

  // For the driver alone, while it holds the operation.
  Operation* next = nullptr;
  std::uint8_t awaited = 0;  // Its own and its cancel's completion, while the kernel has them.
  bool cancel_sent = false;  // To the kernel.
};

/// FIFO of operations, linked through `next`. Not thread-safe.
class OperationQueue {
 public:
  bool empty() const { return head_ == nullptr; }
  std::size_t size() const { return size_; }
  void push(Operation& operation);
  /// The oldest one, or nullptr.
  Operation* pop();
  /// Takes one out of the middle; false when it is not here. Linear.
  bool remove(Operation& operation);

 private:
  Operation* head_ = nullptr;
  Operation* tail_ = nullptr;
  std::size_t size_ = 0;
};

enum class DriverKind {
  automatic,  // uring where the kernel allows it, else threads; the log says which and why.
  uring,
  threads,
};

struct DriverStats {
  std::uint64_t submitted = 0;      // Operations handed to `submit`.
  std::uint64_t completed = 0;      // Operations given back.
  std::uint64_t system_enters = 0;  // io_uring_enter calls; 0 for other drivers.
};

/// The seam under an executor: takes operations and completes each exactly once. Tests and the
/// simulator put their own under the engine through `Environment::make_driver`.
///
/// Thread safety: one thread, the executor's, calls everything but `wake`. Lifetime: destroyed only
/// when nothing is in flight.
class Driver {
 public:
  virtual ~Driver() = default;

  /// Never `automatic`.
  virtual DriverKind kind() const = 0;

  /// Begins `operation`, or queues it until `wait`. Returns true when it is already finished:
  /// `result` is set and `complete` will not be called.
  virtual bool submit(Operation& operation) = 0;

  /// Asks that an operation in flight end early. It still completes once, and only when no trace of
  /// the request to cancel is left in the kernel: with -ECANCELED if it had no effect, else with
  /// its result. At most once for each operation.
  virtual void cancel(Operation& operation) = 0;

  /// Hands over what was queued, all in one system call where the kernel can; waits until something
  /// completes, `wake` is called, or `deadline` passes; calls `complete` for all that finished. No
  /// deadline: waits without limit. A deadline in the past: only looks.
  virtual void wait(std::optional<TimePoint> deadline) = 0;

  /// Ends the present or the next `wait`. Any thread.
  virtual void wake() = 0;

  virtual DriverStats stats() const = 0;
};

struct DriverOptions {
  DriverKind kind = DriverKind::automatic;
  unsigned queue_entries = 256;  // Operations in the kernel at once; more wait in user space.
  unsigned worker_threads = 16;  // For blocking calls; all I/O with DriverKind::threads.
};

namespace detail {
/// The drivers of this library: UringDriver or ThreadDriver.
std::unique_ptr<Driver> make_real_driver(const DriverOptions& options, Environment& environment);

/// The time from `now` to `deadline`, never negative, as the kernel takes it.
__kernel_timespec time_left(TimePoint deadline, TimePoint now);

/// Runs the system call of `operation` in the calling thread and sets its result.
void perform_blocking(Operation& operation) noexcept;

/// The same where no local file system would make the thread wait, and EINVAL for an offset that
/// off_t cannot hold; else does nothing and returns false.
bool perform_at_once(Operation& operation) noexcept;
}  // namespace detail

}  // namespace tidemark
