#pragma once

// The SQL that a storage's connections run, as a test sees it.

#include <mutex>
#include <set>
#include <stdexcept>
#include <string>

#include <sqlite3.h>

namespace tidemark::test {

/// Keeps the text of every statement that runs on a connection which is opened while it lives. One
/// at a time.
///
/// Thread safety: every member from any thread. Lifetime: outlives those connections.
class StatementLog {
 public:
  StatementLog() {
    if (present != nullptr) throw std::logic_error("there is one statement log at a time");
    present = this;
    sqlite3_auto_extension(reinterpret_cast<void (*)()>(&StatementLog::watch));
  }
  ~StatementLog() {
    sqlite3_cancel_auto_extension(reinterpret_cast<void (*)()>(&StatementLog::watch));
    present = nullptr;
  }
  StatementLog(const StatementLog&) = delete;
  StatementLog& operator=(const StatementLog&) = delete;

  /// Each once.
  std::set<std::string> statements() const {
    const std::lock_guard lock(mutex_);
    return statements_;
  }

 private:
  static int watch(sqlite3* db, const char**, const sqlite3_api_routines*) {
    return sqlite3_trace_v2(db, SQLITE_TRACE_STMT, &StatementLog::note, present);
  }
  static int note(unsigned, void* self, void* statement, void*) {
    auto& log = *static_cast<StatementLog*>(self);
    const std::lock_guard lock(log.mutex_);
    log.statements_.emplace(sqlite3_sql(static_cast<sqlite3_stmt*>(statement)));
    return 0;
  }

  inline static StatementLog* present = nullptr;

  mutable std::mutex mutex_;
  std::set<std::string> statements_;
};

}  // namespace tidemark::test
