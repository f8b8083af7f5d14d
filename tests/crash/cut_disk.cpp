#include "cut_disk.hpp"

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <fcntl.h>
#include <fstream>
#include <linux/loop.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <system_error>
#include <thread>
#include <unistd.h>

namespace tidemark::crash {
namespace {

// What xfs and btrfs are content with. Blocks that nobody has written take no memory.
constexpr std::uint64_t k_disk_bytes = std::uint64_t{512} << 20;
constexpr int k_most_tries = 30'000;  // To unmount; each takes a millisecond.

[[noreturn]] void give_up(const std::string& what) {
  throw Unavailable(what + ": " + std::generic_category().message(errno));
}

/// A free loop device over `file`; -1 when another process was faster.
int configure(const std::string& path, int file, std::uint32_t sector_bytes) {
  const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (fd < 0) give_up(path);
  loop_config config{};
  config.fd = static_cast<std::uint32_t>(file);
  config.block_size = sector_bytes;
  config.info.lo_flags = LO_FLAGS_AUTOCLEAR | LO_FLAGS_DIRECT_IO;
  if (::ioctl(fd, LOOP_CONFIGURE, &config) == 0) return fd;
  const int error = errno;
  ::close(fd);
  errno = error;
  if (error != EBUSY) give_up("LOOP_CONFIGURE");
  return -1;
}

}  // namespace

void make_mounts_private() {
  if (::geteuid() != 0) throw Unavailable("only root can mount file systems");
  if (::unshare(CLONE_NEWNS) != 0) give_up("unshare");
  if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) give_up("mount");
}

LoopDevice::LoopDevice(const std::filesystem::path& file, std::uint32_t sector_bytes) {
  const int control = ::open("/dev/loop-control", O_RDWR | O_CLOEXEC);
  if (control < 0) give_up("/dev/loop-control");
  const int target = ::open(file.c_str(), O_RDWR | O_CLOEXEC);
  try {
    if (target < 0) give_up(file.string());
    while (fd_ < 0) {
      const int number = ::ioctl(control, LOOP_CTL_GET_FREE);
      if (number < 0) give_up("LOOP_CTL_GET_FREE");
      path_ = "/dev/loop" + std::to_string(number);
      fd_ = configure(path_.string(), target, sector_bytes);
    }
  } catch (...) {
    ::close(control);
    ::close(target);
    throw;
  }
  ::close(control);
  ::close(target);
  loop_info64 info{};
  if (::ioctl(fd_, LOOP_GET_STATUS64, &info) != 0 || (info.lo_flags & LO_FLAGS_DIRECT_IO) == 0) {
    ::close(fd_);
    throw Unavailable("the loop device does no direct I/O");
  }
}

LoopDevice::~LoopDevice() {
  ::close(fd_);
}

CutDisk::CutDisk(std::uint32_t sector_bytes) : sector_bytes_(sector_bytes) {
  const std::filesystem::path file = folder_ / "disk";
  std::ofstream(file).close();
  std::filesystem::create_directory(folder());
  try {
    const std::string bytes = std::to_string(k_disk_bytes);
    program_ = std::make_unique<test::HelperProgram>(
        "crash_disk", std::vector<std::string>{file.string(), bytes, std::to_string(sector_bytes)});
    program_->receive();
  } catch (const std::exception&) {
    throw Unavailable("FUSE is refused here");
  }
}

CutDisk::~CutDisk() {
  try {
    if (is_mounted_) unmount();
  } catch (const std::system_error&) {
    ::umount2(folder().c_str(), MNT_DETACH);
  }
  device_.reset();
  ::umount2((folder_ / "disk").c_str(), MNT_DETACH);
}

void CutDisk::attach() {
  device_.emplace(folder_ / "disk", sector_bytes_);
}

void CutDisk::format(const std::string& filesystem) {
  std::string command = "mkfs." + filesystem;
  if (filesystem == "ext4") command += " -q -E nodiscard,lazy_itable_init=0,lazy_journal_init=0";
  if (filesystem == "xfs") command += " -q -K";
  if (filesystem == "btrfs") command += " -q -K";
  command += " " + device().string() + " > /dev/null 2>&1";
  if (std::system(command.c_str()) != 0) throw Unavailable("failed: " + command);
}

void CutDisk::mount(const std::string& filesystem) {
  const char* const options = filesystem == "btrfs" ? "nodiscard" : nullptr;
  if (::mount(device().c_str(), folder().c_str(), filesystem.c_str(), 0, options) != 0) {
    throw Unmountable(filesystem + ": " + std::generic_category().message(errno));
  }
  is_mounted_ = true;
}

void CutDisk::unmount() {
  // For a moment the kernel may still be closing the files of processes that were killed.
  for (int tries = 1; ::umount2(folder().c_str(), 0) != 0; ++tries) {
    if (errno != EBUSY || tries == k_most_tries)
      throw std::system_error(errno, std::generic_category(), "umount");
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  is_mounted_ = false;
}

std::uint64_t CutDisk::cut(std::uint64_t seed, std::uint64_t keep_percent) {
  const std::string answer =
      program_->ask("cut " + std::to_string(seed) + ' ' + std::to_string(keep_percent));
  return std::stoull(answer.substr(answer.find(' ')));
}

void CutDisk::restore() {
  program_->ask("restore");
}

}  // namespace tidemark::crash
