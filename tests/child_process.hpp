#pragma once

// What tests do in another process without a program of its own. Forking is for a moment at which
// this process has one thread: before its engine starts.

#include <cerrno>
#include <csignal>
#include <fcntl.h>
#include <filesystem>
#include <functional>
#include <sys/file.h>
#include <sys/wait.h>
#include <system_error>
#include <unistd.h>
#include <utility>

namespace tidemark::test {

/// A forked child that runs `body` and exits with what it returns. Waited for, or killed, at the
/// end.
class ChildProcess {
 public:
  explicit ChildProcess(const std::function<int()>& body) : pid_(::fork()) {
    if (pid_ < 0) throw std::system_error(errno, std::generic_category(), "fork");
    if (pid_ != 0) return;
    int code = 125;
    try {
      code = body();
    } catch (...) {  // The tests that the parent still has to run are not the child's.
    }
    ::_exit(code);
  }
  ~ChildProcess() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    wait();
  }
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  pid_t pid() const { return pid_; }

  /// Its exit code, or minus the signal that ended it.
  int wait() {
    int status = 0;
    ::waitpid(std::exchange(pid_, -1), &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }

 private:
  pid_t pid_;
};

/// Another process that holds a lock (flock) on a file, made when it is missing.
class LockHolder {
 public:
  /// Returns once the lock is held.
  explicit LockHolder(const std::filesystem::path& path, int how = LOCK_EX)
      : child_([&] { return hold(path, how); }) {
    ::close(held_.ends[1]);
    ::close(release_.ends[0]);
    char ignored = 0;
    const bool held = ::read(held_.ends[0], &ignored, 1) == 1;
    ::close(held_.ends[0]);
    if (!held) throw std::system_error(errno, std::generic_category(), "the lock's holder");
  }
  ~LockHolder() {
    if (release_.ends[1] >= 0) release();
  }

  /// Returns once the lock is free.
  void release() {
    // A byte, not the end of the pipe: other children hold copies of it.
    if (::write(release_.ends[1], "", 1) == 1) child_.wait();
    ::close(std::exchange(release_.ends[1], -1));
  }

 private:
  struct Pipe {
    Pipe() {
      if (::pipe2(ends, O_CLOEXEC) != 0) {
        throw std::system_error(errno, std::generic_category(), "pipe2");
      }
    }
    int ends[2];
  };

  int hold(const std::filesystem::path& path, int how) {
    ::close(release_.ends[1]);
    const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0 || ::flock(fd, how) != 0 || ::write(held_.ends[1], "", 1) != 1) return 1;
    char ignored = 0;
    return ::read(release_.ends[0], &ignored, 1) == 1 ? 0 : 1;
  }

  Pipe held_;
  Pipe release_;
  ChildProcess child_;
};

}  // namespace tidemark::test
