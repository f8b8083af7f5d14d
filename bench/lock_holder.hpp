#pragma once

#include <filesystem>
#include <sys/types.h>
#include <vector>

namespace tidemark::bench {

/// Another process that holds the locks (flock) of files, until this object or this process ends.
/// It is forked at construction: before this process has a second thread.
class LockHolder {
 public:
  explicit LockHolder(const std::vector<std::filesystem::path>& files);
  ~LockHolder();
  LockHolder(const LockHolder&) = delete;
  LockHolder& operator=(const LockHolder&) = delete;

  /// Returns once the other process holds the locks. The files exist; called once.
  void lock();

 private:
  int socket_;
  pid_t child_;
};

}  // namespace tidemark::bench
