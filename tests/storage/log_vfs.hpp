#pragma once

// SQLite's own file system calls, as a test sees and refuses them.

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <functional>
#include <mutex>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <sqlite3.h>

namespace tidemark::test {

/// One write, sync or truncation of SQLite's.
struct SqliteCall {
  enum class Kind { write, sync, truncate };

  Kind kind = Kind::write;
  bool is_log = false;  // Of the write-ahead log; else of the database.

  friend bool operator==(const SqliteCall&, const SqliteCall&) = default;
};

/// A VFS over SQLite's default one that keeps these calls, and can answer them with an error. For
/// StorageOptions::sqlite_vfs, by its name. One at a time.
///
/// Thread safety: every member from any thread. Lifetime: outlives the connections that use it.
class LogVfs {
 public:
  /// What to answer instead of doing the call: SQLITE_OK lets it pass.
  using Choose = std::function<int(const SqliteCall& call)>;

  static constexpr const char* k_name = "tidemark-test-log";

  LogVfs() {
    if (present != nullptr) throw std::logic_error("there is one log VFS at a time");
    present = this;
    under_ = sqlite3_vfs_find(nullptr);
    vfs_ = *under_;
    vfs_.zName = k_name;
    vfs_.szOsFile = static_cast<int>(sizeof(LogFile)) + under_->szOsFile;
    vfs_.xOpen = &LogVfs::open;
    vfs_.xDelete = [](sqlite3_vfs*, const char* name, int sync_folder) {
      if (present->before_delete) present->before_delete(name);
      return present->under_->xDelete(present->under_, name, sync_folder);
    };
    if (sqlite3_vfs_register(&vfs_, 0) != SQLITE_OK) throw std::runtime_error("vfs_register");
  }
  ~LogVfs() {
    sqlite3_vfs_unregister(&vfs_);
    present = nullptr;
  }
  LogVfs(const LogVfs&) = delete;
  LogVfs& operator=(const LogVfs&) = delete;

  /// Called with the path of each file that is about to be removed; set before there is a storage.
  std::function<void(std::string_view path)> before_delete;
  /// How often a lock was refused because somebody has it. To be waited for.
  std::atomic<int> refused_locks{0};

  void on_call(Choose choose) {
    const std::lock_guard lock(mutex_);
    choose_ = std::move(choose);
    calls_.clear();
  }
  /// Since the last on_call.
  std::vector<SqliteCall> calls() const {
    const std::lock_guard lock(mutex_);
    return calls_;
  }
  std::size_t count(SqliteCall call) const {
    const std::vector<SqliteCall> all = calls();
    return static_cast<std::size_t>(std::count(all.begin(), all.end(), call));
  }
  std::size_t syncs() const {
    return count({SqliteCall::Kind::sync, true}) + count({SqliteCall::Kind::sync, false});
  }

 private:
  /// Begins as a sqlite3_file does; the one under it follows in the same memory.
  struct LogFile {
    const sqlite3_io_methods* methods;
    sqlite3_io_methods own;
    const sqlite3_io_methods* under_methods;
    bool is_log;

    sqlite3_file* under() { return reinterpret_cast<sqlite3_file*>(this + 1); }
  };
  static LogFile& of(sqlite3_file* file) { return *reinterpret_cast<LogFile*>(file); }

  /// Calls the method under it with the file under it.
  template <auto Member, class... Arguments>
  static auto forward(sqlite3_file* file, Arguments... arguments) {
    return (of(file).under_methods->*Member)(of(file).under(), arguments...);
  }

  int ask(const LogFile& file, SqliteCall::Kind kind) {
    const SqliteCall call{kind, file.is_log};
    Choose choose;
    {
      const std::lock_guard lock(mutex_);
      calls_.push_back(call);
      choose = choose_;
    }
    return choose ? choose(call) : SQLITE_OK;
  }

  static int open(sqlite3_vfs*, sqlite3_filename name, sqlite3_file* file, int flags, int* out) {
    LogFile& self = of(file);
    self.methods = nullptr;
    sqlite3_vfs* const under = present->under_;
    const int code = under->xOpen(under, name, self.under(), flags, out);
    if (self.under()->pMethods == nullptr) return code;
    self.under_methods = self.under()->pMethods;
    self.is_log = (flags & SQLITE_OPEN_WAL) != 0;
    self.own = methods_of(*self.under_methods);
    self.methods = &self.own;
    return code;
  }

  static sqlite3_io_methods methods_of(const sqlite3_io_methods& under) {
    using M = sqlite3_io_methods;
    M own = under;
    own.iVersion = std::min(under.iVersion, 2);  // Without memory-mapped pages.
    own.xClose = [](sqlite3_file* f) { return forward<&M::xClose>(f); };
    own.xRead = [](sqlite3_file* f, void* to, int size, sqlite3_int64 at) {
      return forward<&M::xRead>(f, to, size, at);
    };
    own.xWrite = [](sqlite3_file* f, const void* from, int size, sqlite3_int64 at) {
      const int code = present->ask(of(f), SqliteCall::Kind::write);
      return code != SQLITE_OK ? code : forward<&M::xWrite>(f, from, size, at);
    };
    own.xTruncate = [](sqlite3_file* f, sqlite3_int64 size) {
      const int code = present->ask(of(f), SqliteCall::Kind::truncate);
      return code != SQLITE_OK ? code : forward<&M::xTruncate>(f, size);
    };
    own.xSync = [](sqlite3_file* f, int flags) {
      const int code = present->ask(of(f), SqliteCall::Kind::sync);
      return code != SQLITE_OK ? code : forward<&M::xSync>(f, flags);
    };
    own.xFileSize = [](sqlite3_file* f, sqlite3_int64* size) {
      return forward<&M::xFileSize>(f, size);
    };
    own.xLock = [](sqlite3_file* f, int how) { return forward<&M::xLock>(f, how); };
    own.xUnlock = [](sqlite3_file* f, int how) { return forward<&M::xUnlock>(f, how); };
    own.xCheckReservedLock = [](sqlite3_file* f, int* out) {
      return forward<&M::xCheckReservedLock>(f, out);
    };
    own.xFileControl = [](sqlite3_file* f, int what, void* argument) {
      return forward<&M::xFileControl>(f, what, argument);
    };
    own.xSectorSize = [](sqlite3_file* f) { return forward<&M::xSectorSize>(f); };
    own.xDeviceCharacteristics = [](sqlite3_file* f) {
      return forward<&M::xDeviceCharacteristics>(f);
    };
    own.xShmMap = [](sqlite3_file* f, int page, int size, int extend, void volatile** out) {
      return forward<&M::xShmMap>(f, page, size, extend, out);
    };
    own.xShmLock = [](sqlite3_file* f, int offset, int n, int flags) {
      const int code = forward<&M::xShmLock>(f, offset, n, flags);
      if (code == SQLITE_BUSY) {
        ++present->refused_locks;
        present->refused_locks.notify_all();
      }
      return code;
    };
    own.xShmBarrier = [](sqlite3_file* f) { forward<&M::xShmBarrier>(f); };
    own.xShmUnmap = [](sqlite3_file* f, int remove) { return forward<&M::xShmUnmap>(f, remove); };
    return own;
  }

  inline static LogVfs* present = nullptr;

  sqlite3_vfs* under_ = nullptr;
  sqlite3_vfs vfs_{};
  mutable std::mutex mutex_;
  Choose choose_;
  std::vector<SqliteCall> calls_;
};

}  // namespace tidemark::test
