#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include <sqlite3.h>

#include "machine.hpp"

namespace tidemark::sim {

/// SQLite's files on the disk of a simulated machine, with the locks and the shared memory that
/// connections of several processes need. As SQLite's own VFS for Unix does: a new write-ahead log
/// or journal has its folder synced with its first sync.
///
/// One of a name at a time; StorageOptions::sqlite_vfs names it. Lifetime: outlives the
/// connections.
class SimVfs final : public SharedState {
 public:
  static constexpr const char* k_name = "tidemark-sim";

  explicit SimVfs(Machine& machine, const char* name = k_name);
  ~SimVfs() override;
  SimVfs(const SimVfs&) = delete;
  SimVfs& operator=(const SimVfs&) = delete;

  void release_all_of(const Process& process) override;
  void freeze() override;
  void thaw() override;
  std::size_t open_files() const { return handles_.size(); }

 private:
  struct Handle;

  /// The locks of one database file.
  struct DatabaseLocks {
    std::vector<const Handle*> shared;
    const Handle* reserved = nullptr;
    const Handle* pending = nullptr;
    const Handle* exclusive = nullptr;
  };
  /// The shared memory of one database, which a power cut wipes.
  struct SharedMemory {
    std::vector<std::string> regions;  // Of one size; pointers into them stay.
    std::vector<std::string> frozen;
    std::vector<const Handle*> shared[SQLITE_SHM_NLOCK];
    const Handle* exclusive[SQLITE_SHM_NLOCK] = {};
    std::size_t users = 0;
  };
  /// What SQLite's sqlite3_file holds.
  struct Handle {
    const sqlite3_io_methods* methods;
    SimVfs* vfs;
    Process* process;
    FilePtr file;
    std::string path;
    bool needs_folder_sync;
    bool is_scratch;  // What is in it never matters.
    int level;
    std::shared_ptr<SharedMemory> memory;  // Null until it is mapped.
  };
  static Handle& of(sqlite3_file* file);
  static SimVfs& of(sqlite3_vfs* vfs);

  static int open(sqlite3_vfs* vfs, sqlite3_filename name, sqlite3_file* file, int flags, int* out);
  static int remove(sqlite3_vfs* vfs, const char* name, int sync_folder);
  static const sqlite3_io_methods& methods();

  int read(Handle& handle, void* to, int size, sqlite3_int64 at);
  int write(Handle& handle, const void* from, int size, sqlite3_int64 at);
  int sync(Handle& handle);
  int lock(Handle& handle, int level);
  int unlock(Handle& handle, int level);
  int lock_memory(Handle& handle, int first, int count, int flags);
  int map_memory(Handle& handle, int region, int size, bool extend, void volatile** out);
  void leave_memory(Handle& handle);

  Machine& machine_;
  sqlite3_vfs vfs_{};
  std::vector<Handle*> handles_;
  std::map<const File*, DatabaseLocks> locks_;
  std::map<const File*, std::shared_ptr<SharedMemory>> memories_;
};

}  // namespace tidemark::sim
