// Whether the disk that power_cut uses loses what it may lose, and nothing else: a write that a
// flush followed is kept at every cut, one without is kept, dropped and torn at some.

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fcntl.h>
#include <new>
#include <stdexcept>
#include <string>
#include <unistd.h>

#include "cut_disk.hpp"

namespace tidemark::crash {
namespace {

constexpr std::uint32_t k_sector = 512;
constexpr std::size_t k_bytes = 16 * k_sector;
constexpr off_t k_flushed_at = 0;
constexpr off_t k_unflushed_at = 1 << 20;

struct alignas(4096) Block {
  std::array<char, k_bytes> bytes;
};

/// The device itself, without the page cache.
class RawDevice {
 public:
  explicit RawDevice(const std::filesystem::path& path)
      : fd_(::open(path.c_str(), O_RDWR | O_DIRECT | O_CLOEXEC)) {
    check(fd_ >= 0);
  }
  ~RawDevice() { ::close(fd_); }
  RawDevice(const RawDevice&) = delete;
  RawDevice& operator=(const RawDevice&) = delete;

  void write(off_t offset, char letter) {
    Block block;
    block.bytes.fill(letter);
    check(::pwrite(fd_, block.bytes.data(), k_bytes, offset) == k_bytes);
  }
  void flush() { check(::fsync(fd_) == 0); }
  /// How many of the sectors hold the letter.
  std::size_t count(off_t offset, char letter) {
    Block block;
    check(::pread(fd_, block.bytes.data(), k_bytes, offset) == k_bytes);
    std::size_t sectors = 0;
    for (auto at = block.bytes.begin(); at != block.bytes.end(); at += k_sector) {
      if (std::all_of(at, at + k_sector, [letter](char byte) { return byte == letter; })) ++sectors;
    }
    return sectors;
  }

 private:
  static void check(bool good) {
    if (!good) throw std::system_error(errno, std::generic_category(), "the device");
  }

  const int fd_;
};

void expect(bool holds, const char* what) {
  if (!holds) throw std::runtime_error(std::string("not so: ") + what);
}

void run() {
  constexpr std::size_t k_all = k_bytes / k_sector;
  constexpr int k_cuts = 60;
  CutDisk disk(k_sector);
  disk.attach();
  int kept = 0;
  int dropped = 0;
  int torn = 0;
  for (int i = 0; i < k_cuts; ++i) {
    const char now = static_cast<char>('A' + i % 26);
    {
      RawDevice device(disk.device());
      device.write(k_flushed_at, now);
      device.flush();
      device.write(k_unflushed_at, now);
      expect(disk.cut(static_cast<std::uint64_t>(i), 50) == 1, "one write was not flushed");
      device.write(k_flushed_at, '-');
      device.flush();
      expect(device.count(k_flushed_at, '-') == k_all, "it works on after the cut");
    }
    disk.detach();
    disk.restore();
    disk.attach();
    RawDevice device(disk.device());
    expect(device.count(k_flushed_at, now) == k_all, "what was flushed is kept");
    const std::size_t sectors = device.count(k_unflushed_at, now);
    kept += sectors == k_all ? 1 : 0;
    dropped += sectors == 0 ? 1 : 0;
    torn += sectors != 0 && sectors != k_all ? 1 : 0;
  }
  expect(kept > 0 && dropped > 0 && torn > 0, "what was not flushed is kept, dropped and torn");
  std::printf("%d cuts: %d kept, %d dropped, %d torn\n", k_cuts, kept, dropped, torn);
}

}  // namespace
}  // namespace tidemark::crash

int main() try {
  tidemark::crash::make_mounts_private();
  tidemark::crash::run();
} catch (const tidemark::crash::Unavailable& unavailable) {
  std::printf("SKIPPED: %s\n", unavailable.what());
  return 77;
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
