// A disk whose power can be cut, as one file of a FUSE file system.
//
//   crash_disk FILE BYTES SECTOR    mounts itself over FILE and says `ready`
//
// It does what a disk with a volatile cache may do at worst: only a flush (fsync) makes the writes
// stable that were answered before it. Commands come from standard input, one a line, and each is
// answered with one line once it is done:
//
//   cut SEED KEEP    `cut N`: the power is gone. Of the N writes since the last flush KEEP of 100
//   are
//                    kept, and some are torn, unless KEEP is 0 or 100: each of their sectors, of
//                    SECTOR bytes, is kept or not. From here on writes and flushes work as before,
//                    but are forgotten.
//   restore          `restored`, once nobody has the file open: it holds what was kept at the cut,
//                    and its power is back.
//
// It ends with its standard input.

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <mutex>
#include <span>
#include <sstream>
#include <string>
#include <sys/mman.h>
#include <sys/stat.h>
#include <system_error>
#include <thread>
#include <unistd.h>
#include <vector>

#define FUSE_USE_VERSION 312
#include <fuse_lowlevel.h>

#include "../sim/random.hpp"

namespace {

/// A sparse file in memory.
class Image {
 public:
  explicit Image(std::uint64_t size) : size_(size), fd_(::memfd_create("image", MFD_CLOEXEC)) {
    check(fd_ >= 0 && ::ftruncate(fd_, static_cast<off_t>(size)) == 0);
  }
  ~Image() { ::close(fd_); }
  Image(const Image&) = delete;
  Image& operator=(const Image&) = delete;

  std::uint64_t size() const { return size_; }

  void write(std::uint64_t offset, std::span<const char> bytes) {
    const ssize_t done = ::pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    check(done == static_cast<ssize_t>(bytes.size()));
  }
  std::vector<char> read(std::uint64_t offset, std::size_t size) const {
    std::vector<char> bytes(std::min<std::uint64_t>(size, size_ - std::min(size_, offset)));
    const ssize_t done = ::pread(fd_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    check(done == static_cast<ssize_t>(bytes.size()));
    return bytes;
  }
  void copy_from(const Image& other) {
    check(::ftruncate(fd_, 0) == 0 && ::ftruncate(fd_, static_cast<off_t>(size_)) == 0);
    constexpr std::size_t k_step = std::size_t{1} << 20;
    for (off_t at = 0; (at = ::lseek(other.fd_, at, SEEK_DATA)) >= 0;) {
      const off_t end = ::lseek(other.fd_, at, SEEK_HOLE);
      for (; at < end; at += k_step) {
        write(static_cast<std::uint64_t>(at),
              other.read(static_cast<std::uint64_t>(at),
                         std::min(k_step, static_cast<std::size_t>(end - at))));
      }
      at = end;
    }
    check(errno == ENXIO);  // No more data.
  }

 private:
  static void check(bool good) {
    if (!good) throw std::system_error(errno, std::generic_category(), "memfd");
  }

  const std::uint64_t size_;
  const int fd_;
};

/// Thread-safe.
class Disk {
 public:
  Disk(std::uint64_t size, std::size_t sector) : sector_(sector), current_(size), stable_(size) {}

  std::uint64_t size() const { return current_.size(); }

  std::vector<char> read(std::uint64_t offset, std::size_t size) const {
    const std::lock_guard lock(mutex_);
    return current_.read(offset, size);
  }
  void write(std::uint64_t offset, std::span<const char> bytes) {
    const std::lock_guard lock(mutex_);
    current_.write(offset, bytes);
    if (!is_cut_) unstable_.push_back({offset, {bytes.begin(), bytes.end()}});
  }
  void flush() {
    const std::lock_guard lock(mutex_);
    for (const Write& write : unstable_) stable_.write(write.offset, write.bytes);
    unstable_.clear();
  }

  void opened() {
    const std::lock_guard lock(mutex_);
    ++users_;
  }
  void released() {
    const std::lock_guard lock(mutex_);
    --users_;
    unused_.notify_all();
  }

  std::size_t cut(std::uint64_t seed, std::uint64_t keep_percent) {
    const std::lock_guard lock(mutex_);
    tidemark::sim::Random random(seed);
    is_cut_ = true;
    const std::size_t count = unstable_.size();
    const bool some_are_torn = keep_percent % 100 != 0;
    for (const Write& write : unstable_) {
      if (some_are_torn && random.once_in(4)) {
        tear(write, random);
      } else if (random.below(100) < keep_percent) {
        stable_.write(write.offset, write.bytes);
      }
    }
    unstable_.clear();
    return count;
  }
  void restore() {
    std::unique_lock lock(mutex_);
    unused_.wait(lock, [this] { return users_ == 0; });
    current_.copy_from(stable_);
    is_cut_ = false;
  }

 private:
  struct Write {
    std::uint64_t offset;
    std::vector<char> bytes;
  };

  void tear(const Write& write, tidemark::sim::Random& random) {
    for (std::size_t at = 0; at < write.bytes.size(); at += sector_) {
      const std::size_t size = std::min(sector_, write.bytes.size() - at);
      if (random.once_in(2))
        stable_.write(write.offset + at, std::span(write.bytes).subspan(at, size));
    }
  }

  const std::size_t sector_;
  mutable std::mutex mutex_;
  std::condition_variable unused_;
  Image current_;                // What is read.
  Image stable_;                 // What remains.
  std::vector<Write> unstable_;  // Since the last flush, in order.
  int users_ = 0;
  bool is_cut_ = false;
};

Disk& disk_of(fuse_req_t request) {
  return *static_cast<Disk*>(fuse_req_userdata(request));
}

void get_attributes(fuse_req_t request, fuse_ino_t, fuse_file_info*) {
  struct stat status {};
  status.st_ino = FUSE_ROOT_ID;
  status.st_mode = S_IFREG | 0600;
  status.st_nlink = 1;
  status.st_size = static_cast<off_t>(disk_of(request).size());
  fuse_reply_attr(request, &status, 1e9);
}

void open_file(fuse_req_t request, fuse_ino_t, fuse_file_info* file) {
  file->direct_io = 1;
  disk_of(request).opened();
  fuse_reply_open(request, file);
}

void release_file(fuse_req_t request, fuse_ino_t, fuse_file_info*) {
  disk_of(request).released();
  fuse_reply_err(request, 0);
}

void read_file(fuse_req_t request, fuse_ino_t, std::size_t size, off_t offset, fuse_file_info*) {
  const auto bytes = disk_of(request).read(static_cast<std::uint64_t>(offset), size);
  fuse_reply_buf(request, bytes.data(), bytes.size());
}

void write_file(fuse_req_t request, fuse_ino_t, const char* bytes, std::size_t size, off_t offset,
                fuse_file_info*) {
  disk_of(request).write(static_cast<std::uint64_t>(offset), {bytes, size});
  fuse_reply_write(request, size);
}

void sync_file(fuse_req_t request, fuse_ino_t, int, fuse_file_info*) {
  // Flushes take time, so that a cut often finds writes that wait for one.
  std::this_thread::sleep_for(std::chrono::milliseconds(1));
  disk_of(request).flush();
  fuse_reply_err(request, 0);
}

fuse_lowlevel_ops operations() {
  fuse_lowlevel_ops all{};
  all.getattr = get_attributes;
  all.open = open_file;
  all.release = release_file;
  all.read = read_file;
  all.write = write_file;
  all.fsync = sync_file;
  return all;
}

/// Does what is commanded, until the commands end; then the process ends, too.
void obey(Disk& disk) {
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream words(line);
    std::string command;
    std::uint64_t seed = 0;
    std::uint64_t keep_percent = 0;
    words >> command >> seed >> keep_percent;
    if (command == "cut") {
      std::cout << "cut " << disk.cut(seed, keep_percent) << std::endl;
    } else if (command == "restore") {
      disk.restore();
      std::cout << "restored" << std::endl;
    }
  }
  std::_Exit(0);  // The kernel ends the connection, and whoever waits for it gets an error.
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 4) throw std::runtime_error("usage: crash_disk FILE BYTES SECTOR");
  Disk disk(std::stoull(argv[2]), std::stoull(argv[3]));
  const fuse_lowlevel_ops all = operations();
  char* words[] = {argv[0]};
  fuse_args arguments = FUSE_ARGS_INIT(1, words);
  fuse_session* const session = fuse_session_new(&arguments, &all, sizeof all, &disk);
  if (session == nullptr || fuse_session_mount(session, argv[1]) != 0) {
    throw std::runtime_error("FUSE cannot be mounted");
  }
  std::cout << "ready" << std::endl;
  std::thread(obey, std::ref(disk)).detach();
  // One thread: what is answered before a flush is written before it.
  const int result = fuse_session_loop(session);
  std::_Exit(result == 0 ? 0 : 1);
} catch (const std::exception& error) {
  std::cerr << error.what() << '\n';
  return 1;
}
