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

/// A small ext4 file system of its own, in a file on a loop device. Only root can have one, and not
/// in every container: ask `mounted`.
class LoopFilesystem {
 public:
  explicit LoopFilesystem(std::size_t mebibytes) {
    std::filesystem::create_directory(path());
    const std::string image = (folder_ / "image").string();
    const std::string command = "{ truncate --size " + std::to_string(mebibytes) + "M " + image +
                                " && mkfs.ext4 -q " + image + " && mount -o loop " + image + " " +
                                path().string() + "; } >/dev/null 2>&1";
    mounted_ = std::system(command.c_str()) == 0;
  }
  ~LoopFilesystem() {
    thaw();
    if (mounted_) ::umount2(path().c_str(), MNT_DETACH);
  }

  bool mounted() const { return mounted_; }
  std::filesystem::path path() const { return folder_ / "mount"; }

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
  TemporaryFolder folder_;
  bool mounted_ = false;
  int frozen_ = -1;
};

}  // namespace tidemark::test
