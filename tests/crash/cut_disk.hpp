#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>

#include "../storage/helper_program.hpp"
#include "../temporary_folder.hpp"

namespace tidemark::crash {

/// This machine does not let us have such a disk.
class Unavailable : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// The file system that is on the disk cannot be mounted.
class Unmountable : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// From now on what this process mounts is its own, and its children's: it is gone with them,
/// however they end. Throws Unavailable.
void make_mounts_private();

/// A loop device over a file, which it reads and writes directly. The kernel detaches it when its
/// last user closes it. Throws Unavailable.
class LoopDevice {
 public:
  LoopDevice(const std::filesystem::path& file, std::uint32_t sector_bytes);
  ~LoopDevice();
  LoopDevice(const LoopDevice&) = delete;
  LoopDevice& operator=(const LoopDevice&) = delete;

  const std::filesystem::path& path() const { return path_; }

 private:
  int fd_ = -1;
  std::filesystem::path path_;
};

/// A small disk whose power can be cut: crash_disk under a loop device. After make_mounts_private.
class CutDisk {
 public:
  /// Throws Unavailable.
  explicit CutDisk(std::uint32_t sector_bytes);
  ~CutDisk();
  CutDisk(const CutDisk&) = delete;
  CutDisk& operator=(const CutDisk&) = delete;

  /// Where the device is, between attach and detach.
  const std::filesystem::path& device() const { return device_->path(); }
  /// Throws Unavailable.
  void attach();
  void detach() { device_.reset(); }

  /// Makes a file system of that kind on the disk. Throws Unavailable.
  void format(const std::string& filesystem);
  /// Where it is, between mount and unmount.
  std::filesystem::path folder() const { return folder_ / "mount"; }
  /// Throws Unmountable.
  void mount(const std::string& filesystem);
  /// Returns once nothing uses it any more. Throws std::system_error.
  void unmount();

  /// The power is gone: of the writes that no flush followed, `keep_percent` are kept, and some are
  /// torn. Gives how many there were. What is done with the disk from here on is forgotten.
  std::uint64_t cut(std::uint64_t seed, std::uint64_t keep_percent);
  /// After unmount and detach: the power is back, and the disk holds what it has kept.
  void restore();

 private:
  const test::TemporaryFolder folder_;
  const std::uint32_t sector_bytes_;
  std::unique_ptr<test::HelperProgram> program_;
  std::optional<LoopDevice> device_;
  bool is_mounted_ = false;
};

}  // namespace tidemark::crash
