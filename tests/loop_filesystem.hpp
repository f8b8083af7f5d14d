#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <fcntl.h>
#include <filesystem>
#include <linux/fs.h>
#include <string>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <system_error>
#include <unistd.h>

#include "temporary_folder.hpp"

namespace tidemark::test {

/// A small file system of its own, ext4 or another, in a file on a loop device. Only root can have
/// one, and not in every container: ask `mounted`.
class LoopFilesystem {
 public:
  explicit LoopFilesystem(std::size_t mebibytes, const std::string& kind = "ext4") {
    std::filesystem::create_directory(path());
    mounted_ = run("truncate --size " + std::to_string(mebibytes) + "M " + image()) &&
               run("mkfs." + kind + " -q " + image()) && mount_again();
  }
  ~LoopFilesystem() {
    thaw();
    if (mounted_) ::umount2(path().c_str(), MNT_DETACH);
  }

  bool mounted() const { return mounted_; }
  std::filesystem::path path() const { return folder_ / "mount"; }
  /// After an unmount.
  bool mount_again() const { return run("mount -o loop " + image() + " " + path().string()); }

  /// From now on what writes to it waits, in the kernel, until `thaw`.
  void freeze() {
    frozen_ = ::open(path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (frozen_ < 0 || ::ioctl(frozen_, FIFREEZE, 0) != 0) {
      throw std::system_error(errno, std::generic_category(), "FIFREEZE");
    }
  }
  void thaw() {
    if (frozen_ < 0) return;
    ::ioctl(frozen_, FITHAW, 0);
    ::close(frozen_);
    frozen_ = -1;
  }

 private:
  std::string image() const { return (folder_ / "image").string(); }
  static bool run(const std::string& command) {
    return std::system((command + " >/dev/null 2>&1").c_str()) == 0;
  }

  TemporaryFolder folder_;
  bool mounted_ = false;
  int frozen_ = -1;
};

}  // namespace tidemark::test
