#pragma once

#include <chrono>
#include <utility>

#include <tidemark/io/directory.hpp>
#include <tidemark/io/file.hpp>

namespace tidemark {

/// An advisory lock (flock), held across awaits for as long as this object lives. It owns the file:
/// the lock is on the very description that the reads and writes use, so a write that is still in
/// the kernel when the process dies keeps others out until it has landed.
///
/// A waiter occupies no thread: it tries without blocking, after pauses of about 1 to 5 ms, which
/// grow with the number of this process' waiters to k_longest_pause, so that few are served soon
/// and a thousand cost a few thousand cheap system calls a second.
///
/// `release` ends the lock at once, whoever else has a copy of the descriptor: a child process from
/// its fork to its exec, or a request of the ring that lets its file go after its completion was
/// seen.
///
/// Thread safety: the tasks run on the file's executor.
class FileLock {
 public:
  enum class Mode { shared, exclusive };
  static constexpr std::chrono::milliseconds k_longest_pause{250};

  FileLock() = default;

  /// Takes the lock on `file`. Throws std::errc::timed_out after `deadline` (at least one try is
  /// made), std::errc::operation_canceled when stopped.
  static Task<FileLock> acquire(File file, Mode mode, TimePoint deadline);

  /// Opens `name`, takes the lock, and makes sure that the file is still the one at that name; if
  /// not, begins again. Throws as the two steps do; ENOENT once the name is gone.
  static Task<FileLock> open(Directory& directory, const char* name, Directory::Open how,
                             TimePoint deadline, Mode mode = Mode::exclusive);

  bool owns_lock() const { return file_.is_open(); }
  File& file() { return file_; }
  /// Ends the lock and closes the file. No operation on it may be on its way.
  void release() { File(std::move(file_)); }
  /// The same on a worker thread, for a file that was unlinked.
  Task<void> close() { return file_.close(); }

 private:
  explicit FileLock(File file) : file_(std::move(file)) {}

  File file_;
};

}  // namespace tidemark
