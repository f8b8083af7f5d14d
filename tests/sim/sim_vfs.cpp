#include "sim_vfs.hpp"

#include <algorithm>
#include <cstring>
#include <new>
#include <stdexcept>
#include <utility>

#include <tidemark/engine/assert.hpp>

#include "allocations.hpp"

namespace tidemark::sim {
namespace {

constexpr int k_max_path = 512;
constexpr sqlite3_int64 k_julian_epoch_ms = 210'866'760'000'000;  // 1970-01-01 in julian days.

}  // namespace

SimVfs::SimVfs(Machine& machine, const char* own_name) : machine_(machine) {
  vfs_.iVersion = 2;
  vfs_.szOsFile = sizeof(Handle);
  vfs_.mxPathname = k_max_path;
  vfs_.zName = own_name;
  vfs_.pAppData = this;
  vfs_.xOpen = &SimVfs::open;
  vfs_.xDelete = &SimVfs::remove;
  vfs_.xAccess = [](sqlite3_vfs* vfs, const char* name, int, int* out) {
    const Allocations::Scope own(false);
    *out = of(vfs).machine_.disk().find(name) != nullptr ? 1 : 0;
    return of(vfs).machine_.running_process().is_dead() ? SQLITE_IOERR_ACCESS : SQLITE_OK;
  };
  vfs_.xFullPathname = [](sqlite3_vfs*, const char* name, int size, char* out) {
    sqlite3_snprintf(size, out, "%s", name);
    return SQLITE_OK;
  };
  vfs_.xRandomness = [](sqlite3_vfs* vfs, int size, char* out) {
    for (int i = 0; i < size; ++i) out[i] = static_cast<char>(of(vfs).machine_.chance().bits());
    return size;
  };
  // Nobody else runs meanwhile, so waiting would only end with the clock.
  vfs_.xSleep = [](sqlite3_vfs*, int microseconds) { return microseconds; };
  vfs_.xCurrentTimeInt64 = [](sqlite3_vfs* vfs, sqlite3_int64* out) {
    const auto since = of(vfs).machine_.system_now().time_since_epoch();
    *out = k_julian_epoch_ms + std::chrono::floor<std::chrono::milliseconds>(since).count();
    return SQLITE_OK;
  };
  vfs_.xGetLastError = [](sqlite3_vfs*, int, char*) { return 0; };
  if (sqlite3_vfs_register(&vfs_, 0) != SQLITE_OK) throw std::runtime_error("vfs_register");
  machine_.shared_state = this;
}

SimVfs::~SimVfs() {
  machine_.shared_state = nullptr;
  sqlite3_vfs_unregister(&vfs_);
}

void SimVfs::release_all_of(const Process& process) {
  for (Handle* const handle : handles_) {
    if (handle->process != &process) continue;
    unlock(*handle, SQLITE_LOCK_NONE);
    leave_memory(*handle);  // Its code may still read it.
  }
}

void SimVfs::freeze() {
  for (const auto& [file, memory] : memories_) memory->frozen = memory->regions;
}

void SimVfs::thaw() {
  for (const auto& [file, memory] : memories_) {
    for (std::size_t i = 0; i < memory->frozen.size(); ++i) {
      std::ranges::copy(memory->frozen[i], memory->regions[i].begin());
    }
  }
}

SimVfs::Handle& SimVfs::of(sqlite3_file* file) {
  return *reinterpret_cast<Handle*>(file);
}

SimVfs& SimVfs::of(sqlite3_vfs* vfs) {
  return *static_cast<SimVfs*>(vfs->pAppData);
}

int SimVfs::open(sqlite3_vfs* vfs, sqlite3_filename name, sqlite3_file* file, int flags, int* out) {
  const Allocations::Scope own(false);
  SimVfs& self = of(vfs);
  Machine& machine = self.machine_;
  Process& process = machine.running_process();
  file->pMethods = nullptr;
  if (process.is_dead()) return SQLITE_IOERR;
  if (machine.call_fault.fails()) return SQLITE_CANTOPEN;
  TIDEMARK_ASSERT(name != nullptr, "temporary tables stay in memory");
  FilePtr found = machine.disk().find(name);
  bool made = false;
  if (found == nullptr) {
    if ((flags & SQLITE_OPEN_CREATE) == 0) return SQLITE_CANTOPEN;
    if (!machine.step(process)) return SQLITE_IOERR;
    found = machine.disk().create(name, false, machine.system_now());
    made = true;
  }
  constexpr int k_logs = SQLITE_OPEN_WAL | SQLITE_OPEN_MAIN_JOURNAL;
  const bool scratch = (flags & SQLITE_OPEN_TRANSIENT_DB) != 0;
  const bool needs_folder_sync = made && (flags & k_logs) != 0;
  new (file) Handle{&methods(),        &self,   &process,         std::move(found), name,
                    needs_folder_sync, scratch, SQLITE_LOCK_NONE, nullptr};
  self.handles_.push_back(&of(file));
  if (out != nullptr) *out = flags;
  return SQLITE_OK;
}

int SimVfs::remove(sqlite3_vfs* vfs, const char* name, int sync_folder) {
  const Allocations::Scope own(false);
  Machine& machine = of(vfs).machine_;
  if (!machine.step(machine.running_process()) || machine.call_fault.fails()) {
    return SQLITE_IOERR_DELETE;
  }
  if (machine.disk().find(name) == nullptr) return SQLITE_IOERR_DELETE_NOENT;
  machine.disk().unlink(name);
  if (sync_folder != 0) machine.disk().sync_folder(parent_of(name));
  return SQLITE_OK;
}

int SimVfs::read(Handle& handle, void* to, int size, sqlite3_int64 at) {
  if (handle.process->is_dead() || machine_.call_fault.fails()) return SQLITE_IOERR_READ;
  const std::string& content = handle.file->now;
  const auto offset = static_cast<std::uint64_t>(at);
  const auto wanted = static_cast<std::size_t>(size);
  const std::size_t there =
      offset >= content.size() ? 0 : std::min<std::size_t>(wanted, content.size() - offset);
  std::memcpy(to, content.data() + (there == 0 ? 0 : offset), there);
  if (there == wanted) return SQLITE_OK;
  std::memset(static_cast<char*>(to) + there, 0, wanted - there);
  return SQLITE_IOERR_SHORT_READ;
}

int SimVfs::write(Handle& handle, const void* from, int size, sqlite3_int64 at) {
  const Allocations::Scope own(false);
  if (handle.process->is_dead()) return SQLITE_IOERR_WRITE;
  if (handle.is_scratch) return SQLITE_OK;
  if (!machine_.step(*handle.process) || machine_.call_fault.fails()) return SQLITE_IOERR_WRITE;
  if (machine_.full_fault.fails() || machine_.fails(machine_.faults().full)) return SQLITE_FULL;
  if (machine_.fails(machine_.faults().failed)) return SQLITE_IOERR_WRITE;
  const std::string_view bytes(static_cast<const char*>(from), static_cast<std::size_t>(size));
  machine_.disk().write(*handle.file, static_cast<std::uint64_t>(at), bytes, false);
  return SQLITE_OK;
}

int SimVfs::sync(Handle& handle) {
  const Allocations::Scope own(false);
  if (!machine_.step(*handle.process, true)) return SQLITE_IOERR_FSYNC;
  if (machine_.call_fault.fails() || machine_.fails(machine_.faults().failed_sync)) {
    machine_.disk().lose_pending(*handle.file, machine_.chance());
    return SQLITE_IOERR_FSYNC;
  }
  machine_.disk().sync(*handle.file);
  if (std::exchange(handle.needs_folder_sync, false)) {
    machine_.disk().sync_folder(parent_of(handle.path));
  }
  return SQLITE_OK;
}

int SimVfs::lock(Handle& handle, int level) {
  const Allocations::Scope own(false);
  if (handle.process->is_dead()) return SQLITE_IOERR_LOCK;
  DatabaseLocks& locks = locks_[handle.file.get()];
  const auto other = [&](const Handle* owner) { return owner != nullptr && owner != &handle; };
  if (level <= handle.level) return SQLITE_OK;
  if (level == SQLITE_LOCK_SHARED) {
    if (other(locks.pending) || other(locks.exclusive)) return SQLITE_BUSY;
    locks.shared.push_back(&handle);
  } else if (level == SQLITE_LOCK_RESERVED) {
    if (other(locks.reserved) || other(locks.pending) || other(locks.exclusive)) return SQLITE_BUSY;
    locks.reserved = &handle;
  } else {
    if (other(locks.reserved) || other(locks.pending) || other(locks.exclusive)) return SQLITE_BUSY;
    locks.pending = &handle;
    if (locks.shared.size() > 1) return SQLITE_BUSY;
    locks.exclusive = &handle;
  }
  handle.level = level;
  return SQLITE_OK;
}

int SimVfs::unlock(Handle& handle, int level) {
  const Allocations::Scope own(false);
  DatabaseLocks& locks = locks_[handle.file.get()];
  for (const Handle** owner : {&locks.reserved, &locks.pending, &locks.exclusive}) {
    if (*owner == &handle) *owner = nullptr;
  }
  if (level == SQLITE_LOCK_NONE) std::erase(locks.shared, &handle);
  handle.level = level;
  return SQLITE_OK;
}

int SimVfs::lock_memory(Handle& handle, int first, int count, int flags) {
  const Allocations::Scope own(false);
  if (handle.process->is_dead()) return SQLITE_IOERR_SHMLOCK;
  SharedMemory& memory = *handle.memory;
  const bool shared = (flags & SQLITE_SHM_SHARED) != 0;
  for (int i = first; i < first + count; ++i) {
    const Handle*& owner = memory.exclusive[i];
    std::vector<const Handle*>& users = memory.shared[i];
    if ((flags & SQLITE_SHM_UNLOCK) != 0) {
      if (shared) {
        std::erase(users, &handle);
      } else if (owner == &handle) {
        owner = nullptr;
      }
      continue;
    }
    if (owner != nullptr && owner != &handle) return SQLITE_BUSY;
    const bool others = users.size() > (std::ranges::count(users, &handle) > 0 ? 1U : 0U);
    if (!shared && others) return SQLITE_BUSY;
  }
  if ((flags & SQLITE_SHM_UNLOCK) != 0) return SQLITE_OK;
  for (int i = first; i < first + count; ++i) {
    if (!shared) memory.exclusive[i] = &handle;
    if (shared && std::ranges::count(memory.shared[i], &handle) == 0) {
      memory.shared[i].push_back(&handle);
    }
  }
  return SQLITE_OK;
}

int SimVfs::map_memory(Handle& handle, int region, int size, bool extend, void volatile** out) {
  const Allocations::Scope own(false);
  *out = nullptr;
  if (handle.process->is_dead()) return SQLITE_IOERR_SHMMAP;
  if (handle.memory == nullptr) {
    std::shared_ptr<SharedMemory>& memory = memories_[handle.file.get()];
    if (memory == nullptr) memory = std::make_shared<SharedMemory>();
    handle.memory = memory;
    ++memory->users;
  }
  SharedMemory& memory = *handle.memory;
  const auto wanted = static_cast<std::size_t>(region) + 1;
  while (extend && memory.regions.size() < wanted) {
    memory.regions.emplace_back(static_cast<std::size_t>(size), '\0');
  }
  if (memory.regions.size() >= wanted) *out = memory.regions[wanted - 1].data();
  return SQLITE_OK;
}

void SimVfs::leave_memory(Handle& handle) {
  if (handle.memory == nullptr) return;
  for (int i = 0; i < SQLITE_SHM_NLOCK; ++i) {
    std::erase(handle.memory->shared[i], &handle);
    if (handle.memory->exclusive[i] == &handle) handle.memory->exclusive[i] = nullptr;
  }
  if (--handle.memory->users == 0) memories_.erase(handle.file.get());
}

const sqlite3_io_methods& SimVfs::methods() {
  static const sqlite3_io_methods all = [] {
    sqlite3_io_methods m{};
    m.iVersion = 2;
    m.xClose = [](sqlite3_file* file) {
      Handle& handle = of(file);
      handle.vfs->unlock(handle, SQLITE_LOCK_NONE);
      std::erase(handle.vfs->handles_, &handle);
      handle.~Handle();
      return SQLITE_OK;
    };
    m.xRead = [](sqlite3_file* file, void* to, int size, sqlite3_int64 at) {
      return of(file).vfs->read(of(file), to, size, at);
    };
    m.xWrite = [](sqlite3_file* file, const void* from, int size, sqlite3_int64 at) {
      return of(file).vfs->write(of(file), from, size, at);
    };
    m.xTruncate = [](sqlite3_file* file, sqlite3_int64 size) {
      const Allocations::Scope own(false);
      Machine& machine = of(file).vfs->machine_;
      if (!machine.step(*of(file).process) || machine.call_fault.fails())
        return SQLITE_IOERR_TRUNCATE;
      machine.disk().truncate(*of(file).file, static_cast<std::uint64_t>(size));
      return SQLITE_OK;
    };
    m.xSync = [](sqlite3_file* file, int) { return of(file).vfs->sync(of(file)); };
    m.xFileSize = [](sqlite3_file* file, sqlite3_int64* size) {
      *size = static_cast<sqlite3_int64>(of(file).file->now.size());
      return of(file).process->is_dead() ? SQLITE_IOERR_FSTAT : SQLITE_OK;
    };
    m.xLock = [](sqlite3_file* file, int level) { return of(file).vfs->lock(of(file), level); };
    m.xUnlock = [](sqlite3_file* file, int level) { return of(file).vfs->unlock(of(file), level); };
    m.xCheckReservedLock = [](sqlite3_file* file, int* out) {
      const Allocations::Scope own(false);
      const DatabaseLocks& locks = of(file).vfs->locks_[of(file).file.get()];
      *out = locks.reserved != nullptr || locks.pending != nullptr ? 1 : 0;
      return SQLITE_OK;
    };
    m.xFileControl = [](sqlite3_file* file, int what, void* out) {
      if (what != SQLITE_FCNTL_HAS_MOVED) return SQLITE_NOTFOUND;
      const Handle& handle = of(file);
      *static_cast<int*>(out) =
          handle.vfs->machine_.disk().find(handle.path) == handle.file ? 0 : 1;
      return SQLITE_OK;
    };
    m.xSectorSize = [](sqlite3_file*) { return 4096; };
    m.xDeviceCharacteristics = [](sqlite3_file*) { return SQLITE_IOCAP_POWERSAFE_OVERWRITE; };
    m.xShmMap = [](sqlite3_file* file, int region, int size, int extend, void volatile** out) {
      return of(file).vfs->map_memory(of(file), region, size, extend != 0, out);
    };
    m.xShmLock = [](sqlite3_file* file, int first, int count, int flags) {
      return of(file).vfs->lock_memory(of(file), first, count, flags);
    };
    m.xShmBarrier = [](sqlite3_file*) {};
    m.xShmUnmap = [](sqlite3_file* file, int) {
      Handle& handle = of(file);
      if (!handle.process->is_killed()) handle.vfs->leave_memory(handle);
      handle.memory.reset();
      return SQLITE_OK;
    };
    return m;
  }();
  return all;
}

}  // namespace tidemark::sim
