// The system calls of a simulated machine.

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/file.h>
#include <sys/uio.h>
#include <utility>

#include <tidemark/engine/assert.hpp>

#include "machine.hpp"

namespace tidemark::sim {
namespace {

constexpr int k_first_descriptor = 100;  // None that the real process has.
constexpr std::uint64_t k_block_bytes = 4096;

bool is_change(Operation::Kind kind) {
  switch (kind) {
    case Operation::Kind::read:
    case Operation::Kind::open:  // It counts when it makes a file.
    case Operation::Kind::close:
    case Operation::Kind::stat:
    case Operation::Kind::stat_filesystem:
    case Operation::Kind::list_directory:
    case Operation::Kind::lock:
      return false;
    default:
      return true;
  }
}

/// What a call that is not done this time answers. EAGAIN only where it tells whoever asked to ask
/// again: of a lock it says that another has it.
std::int64_t interruption(Operation::Kind kind, Random& chance) {
  using Kind = Operation::Kind;
  const bool may_be_busy = kind == Kind::read || kind == Kind::write || kind == Kind::lock;
  return may_be_busy && chance.once_in(2) ? -EAGAIN : -EINTR;
}

}  // namespace

OpenFile& Machine::opened(int fd) const {
  return *share(fd);
}

std::shared_ptr<OpenFile> Machine::share(int fd) const {
  const auto at = descriptors_.find(fd);
  TIDEMARK_ASSERT(at != descriptors_.end(), "a descriptor is used only while it is open");
  return at->second;
}

void Machine::close_descriptor(int fd) noexcept {
  const std::shared_ptr<OpenFile> file = share(fd);
  descriptors_.erase(fd);
  release_locks(*file);
}

void Machine::release_locks(const OpenFile& file) {
  const auto exclusive = locks_.find(file.file.get());
  if (exclusive != locks_.end() && exclusive->second == &file) locks_.erase(exclusive);
  const auto shared = shared_locks_.find(file.file.get());
  if (shared != shared_locks_.end()) shared->second.erase(&file);
}

void Machine::set_direct(int fd, bool direct) {
  opened(fd).is_direct = direct;
}

std::string Machine::path_of(int folder, const char* path) const {
  std::string whole = path;
  if (!whole.starts_with('/')) {
    const std::string& base = opened(folder).path;
    whole = base == "/" ? base + whole : base + "/" + whole;
  }
  if (whole.ends_with("/.")) whole.resize(whole.size() - 2);
  while (whole.size() > 1 && whole.ends_with('/')) whole.pop_back();
  return whole.empty() ? "/" : whole;
}

void Machine::lose_dirty_pages(const Operation& sync) {
  const OpenFile& file = opened(sync.fd);
  const bool is_one = sync.kind != Operation::Kind::sync_filesystem;
  if (is_one) disk_.lose_pending(*file.file, random_);
  if (!is_one) disk_.lose_all_pending(random_);
  if (on_loss) on_loss(is_one ? &file : nullptr);
}

std::optional<std::int64_t> Machine::fault(const Operation& operation, const Process& process) {
  using Kind = Operation::Kind;
  if (process.is_dead()) return -EIO;
  const bool syncs = operation.kind == Kind::sync || operation.kind == Kind::sync_filesystem ||
                     (operation.kind == Kind::write && (operation.flags & RWF_DSYNC) != 0);
  if (call_fault.fails()) {
    if (syncs) lose_dirty_pages(operation);
    return -EIO;
  }
  if (fails(faults_.interrupted)) return interruption(operation.kind, random_);
  if (operation.kind == Kind::lock || operation.kind == Kind::stat) return std::nullopt;
  if (syncs && fails(faults_.failed_sync)) {
    lose_dirty_pages(operation);
    return random_.once_in(2) ? -EIO : -ENOSPC;
  }
  if (fails(faults_.failed)) return -EIO;
  const bool grows = operation.kind == Kind::write || operation.kind == Kind::allocate ||
                     operation.kind == Kind::copy_range;
  if (grows && (full_fault.fails() || fails(faults_.full))) return -ENOSPC;
  return std::nullopt;
}

std::int64_t Machine::perform(Operation& operation, const Process& process) {
  using Kind = Operation::Kind;
  if (operation.kind == Kind::close) {
    close_descriptor(operation.fd);
    return 0;
  }
  if (const auto failure = fault(operation, process)) return *failure;
  ++operations_;
  if (is_change(operation.kind) && !step(process)) return -EIO;
  switch (operation.kind) {
    case Kind::read:
      return read(operation);
    case Kind::write:
      return write(operation, process);
    case Kind::sync:
    case Kind::sync_filesystem:
      return sync(operation);
    case Kind::open:
      return open_file(operation, process);
    case Kind::stat:
      return stat(operation);
    case Kind::stat_filesystem:
      *operation.filesystem = {};
      operation.filesystem->f_type = EXT4_SUPER_MAGIC;
      operation.filesystem->f_frsize = static_cast<long>(k_block_bytes);
      operation.filesystem->f_bavail = std::uint64_t{1} << 30;
      return 0;
    case Kind::allocate: {
      File& file = *opened(operation.fd).file;
      file.allocated_bytes = std::max(file.allocated_bytes, operation.offset + operation.length);
      return 0;
    }
    case Kind::truncate:
      disk_.truncate(*opened(operation.fd).file, operation.length);
      return 0;
    case Kind::change_mode:
      return 0;
    case Kind::list_directory:
      *operation.names = disk_.names_in(opened(operation.fd).path);
      return 0;
    case Kind::copy_range:
      return copy_range(operation);
    case Kind::lock:
      return lock(operation);
    default:
      return change_names(operation);
  }
}

std::int64_t Machine::read(const Operation& operation) {
  const std::string& content = opened(operation.fd).file->now;
  if (operation.offset >= content.size()) return 0;
  std::uint64_t size = std::min(operation.length, content.size() - operation.offset);
  if (size > 1 && (short_fault.fails() || fails(faults_.short_transfer)))
    size = random_.between(1, size - 1);
  std::memcpy(operation.buffer, content.data() + operation.offset, size);
  return static_cast<std::int64_t>(size);
}

std::int64_t Machine::write(const Operation& operation, const Process& process) {
  OpenFile& file = opened(operation.fd);
  const auto address = reinterpret_cast<std::uintptr_t>(operation.const_buffer);
  const bool aligned = operation.offset % Disk::k_sector_bytes == 0 &&
                       operation.length % Disk::k_sector_bytes == 0 &&
                       address % Disk::k_sector_bytes == 0;
  if (file.is_direct && !aligned) return -EINVAL;
  if (on_write && !process.is_foreign()) {
    const auto lock = locks_.find(file.file.get());
    on_write(file, operation.offset, lock != locks_.end() && lock->second == &file);
  }
  std::uint64_t size = operation.length;
  if (size > 1 && (short_fault.fails() || fails(faults_.short_transfer))) {
    size = random_.between(1, size - 1);
    if (file.is_direct) size -= size % Disk::k_sector_bytes;
    if (size == 0) size = operation.length;
  }
  const std::string_view bytes(static_cast<const char*>(operation.const_buffer), size);
  disk_.write(*file.file, operation.offset, bytes, (operation.flags & RWF_DSYNC) != 0);
  return static_cast<std::int64_t>(size);
}

std::int64_t Machine::sync(const Operation& operation) {
  if (operation.kind == Operation::Kind::sync_filesystem) {
    disk_.sync_all();
    return 0;
  }
  const OpenFile& file = opened(operation.fd);
  if (file.file->is_folder) {
    disk_.sync_folder(file.path);
  } else {
    disk_.sync(*file.file);
  }
  return 0;
}

std::int64_t Machine::open_file(const Operation& operation, const Process& process) {
  const std::string path = path_of(operation.fd, operation.path);
  const std::uint64_t flags = operation.how.flags;
  FilePtr file = disk_.find(path);
  if (file != nullptr && (flags & O_EXCL) != 0) return -EEXIST;
  if (file == nullptr) {
    if ((flags & O_CREAT) == 0 || disk_.find(parent_of(path)) == nullptr) return -ENOENT;
    if (!step(process)) return -EIO;
    file = disk_.create(path, false, system_now());
  }
  if (file->is_folder != ((flags & O_DIRECTORY) != 0)) return file->is_folder ? -EISDIR : -ENOTDIR;
  int fd = k_first_descriptor;
  for (const auto& [used, description] : descriptors_) {
    if (used != fd) break;
    ++fd;
  }
  descriptors_.emplace(fd, std::make_shared<OpenFile>(OpenFile{path, std::move(file), &process}));
  return fd;
}

std::int64_t Machine::stat(const Operation& operation) {
  const bool of_descriptor = operation.path[0] == '\0';
  const FilePtr file =
      of_descriptor ? opened(operation.fd).file : disk_.find(path_of(operation.fd, operation.path));
  if (file == nullptr) return -ENOENT;
  struct statx& status = *operation.stat;
  status = {};
  status.stx_mask = STATX_BASIC_STATS | STATX_BTIME;
  status.stx_dev_minor = 1;
  status.stx_ino = file->inode;
  status.stx_mode = file->is_folder ? (S_IFDIR | 0777) : (S_IFREG | 0666);
  status.stx_nlink = disk_.links_of(file);
  status.stx_size = file->now.size();
  status.stx_blocks = file->allocated_bytes / 512;
  const auto born = file->born_at.time_since_epoch();
  const auto seconds = std::chrono::floor<std::chrono::seconds>(born);
  status.stx_btime.tv_sec = seconds.count();
  status.stx_btime.tv_nsec =
      static_cast<std::uint32_t>(std::chrono::nanoseconds(born - seconds).count());
  status.stx_mtime = status.stx_btime;
  return 0;
}

std::int64_t Machine::lock(const Operation& operation) {
  const OpenFile& file = opened(operation.fd);
  const File* const what = file.file.get();
  auto& shared = shared_locks_[what];
  const auto owner = locks_.find(what);
  const bool others_exclude = owner != locks_.end() && owner->second != &file;
  const bool others_share = shared.size() > (shared.contains(&file) ? 1U : 0U);
  if ((operation.flags & LOCK_UN) != 0) {
    shared.erase(&file);
    if (owner != locks_.end() && !others_exclude) locks_.erase(owner);
    return 0;
  }
  if (others_exclude) return -EWOULDBLOCK;
  if ((operation.flags & LOCK_SH) != 0) {
    shared.insert(&file);
    return 0;
  }
  if (others_share) return -EWOULDBLOCK;
  locks_[what] = &file;
  return 0;
}

std::int64_t Machine::change_names(const Operation& operation) {
  using Kind = Operation::Kind;
  const std::string path = path_of(operation.fd, operation.path);
  const FilePtr file = disk_.find(path);
  if (operation.kind == Kind::make_directory) {
    if (file != nullptr) return -EEXIST;
    if (disk_.find(parent_of(path)) == nullptr) return -ENOENT;
    disk_.create(path, true, system_now());
    return 0;
  }
  if (file == nullptr) return -ENOENT;
  if (operation.kind == Kind::unlink) {
    disk_.unlink(path);
    return 0;
  }
  const std::string to = path_of(operation.other_fd, operation.other_path);
  if (operation.kind == Kind::rename) {
    disk_.rename(path, to);
    return 0;
  }
  TIDEMARK_ASSERT(operation.kind == Kind::link, "no other operation is left");
  if (disk_.find(to) != nullptr) return -EEXIST;
  disk_.link(file, to);
  return 0;
}

std::int64_t Machine::copy_range(const Operation& operation) {
  const std::string& from = opened(operation.fd).file->now;
  if (operation.offset >= from.size()) return 0;
  std::uint64_t size = std::min(operation.length, from.size() - operation.offset);
  if (size > 1 && (short_fault.fails() || fails(faults_.short_transfer)))
    size = random_.between(1, size - 1);
  disk_.write(*opened(operation.other_fd).file, operation.other_offset,
              std::string_view(from).substr(operation.offset, size), false);
  return static_cast<std::int64_t>(size);
}

}  // namespace tidemark::sim
