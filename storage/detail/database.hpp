#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include <sqlite3.h>

#include <tidemark/engine/assert.hpp>
#include <tidemark/storage/errc.hpp>

namespace tidemark::detail {

/// A failed call of SQLite. what() names what was done, SQLite's message and, where the operating
/// system refused something, its own.
class SqliteError : public std::runtime_error {
 public:
  /// Describes the call on `db` that has just failed with `code`; `db` may be null. Throws
  /// std::bad_alloc in its place when the failure was that.
  SqliteError(sqlite3* db, int code, std::string_view action);

  /// The extended result code, such as SQLITE_IOERR_FSYNC.
  [[nodiscard]] int code() const noexcept { return code_; }
  /// Its primary code, such as SQLITE_IOERR.
  [[nodiscard]] int primary_code() const noexcept { return code_ & 0xff; }
  /// What users are told: busy, no_space, corrupt, or io_error for all else.
  [[nodiscard]] Errc errc() const noexcept;

 private:
  int code_;
};

/// One connection of SQLite. All of it blocks, so it belongs on a thread of its own.
///
/// No busy timeout is set: SQLITE_BUSY is thrown at once and the caller decides how to wait.
/// Thread safety: one thread at a time, also for its statements.
/// Lifetime: outlives its statements, which keep the address of the sqlite3, not of this object.
/// Errors: SqliteError.
class Database {
 public:
  /// No connection; only assigning to it and handle() are allowed.
  Database() = default;
  /// Opens `path` with SQLITE_OPEN_* `flags`, through the VFS called `vfs` (null: the default).
  Database(const std::string& path, int flags, const char* vfs = nullptr);

  /// Runs statements that answer no rows.
  void exec(const char* sql);
  /// Rows that the last INSERT, UPDATE or DELETE changed.
  [[nodiscard]] std::int64_t changes() const noexcept;
  /// Whether a transaction is open: some errors roll it back on their own.
  [[nodiscard]] bool in_transaction() const noexcept;
  /// For what has no wrapper here (file controls, hooks, backup); null without a connection.
  [[nodiscard]] sqlite3* handle() const noexcept { return db_.get(); }

 private:
  struct Closer {
    void operator()(sqlite3* db) const noexcept;
  };
  std::unique_ptr<sqlite3, Closer> db_;
};

/// A prepared statement, made to be kept and run many times.
///
/// Parameters count from 1, columns from 0. Bound bytes are copied. Every run ends with reset(),
/// most simply by a StatementReset: a statement that is not reset keeps its transaction open.
/// Thread safety and errors: as Database, which must outlive it.
class Statement {
 public:
  Statement(const Database& db, std::string_view sql);

  template <std::integral T>
  void bind(int parameter, T value) {
    TIDEMARK_ASSERT(std::in_range<std::int64_t>(value), "SQLite's integers are signed, 64 bits");
    bind_int64(parameter, static_cast<std::int64_t>(value));
  }
  void bind(int parameter, bool value) { bind_int64(parameter, value ? 1 : 0); }
  void bind(int parameter, double value);
  void bind(int parameter, std::string_view text);
  void bind(int parameter, const char* text) { bind(parameter, std::string_view(text)); }
  void bind(int parameter, std::span<const std::byte> blob);
  void bind(int parameter, std::nullopt_t null);
  template <typename T>
  void bind(int parameter, const std::optional<T>& value) {
    value ? bind(parameter, *value) : bind(parameter, std::nullopt);
  }

  /// Runs to the next row; false at the end. After an error, reset() before the next run.
  [[nodiscard]] bool step();
  /// Runs a statement that answers no row, and resets it, also when it fails.
  void run();
  /// Ends the run and makes all parameters NULL. Never fails: step() has reported the error.
  void reset() noexcept;

  // The current row's columns, converted by SQLite's rules when the type is another. Views live
  // until the next step, reset or read of the same column as another type.
  [[nodiscard]] bool is_null(int column) const noexcept;
  [[nodiscard]] bool is_integer(int column) const noexcept;
  [[nodiscard]] std::int64_t int64(int column) const noexcept;
  [[nodiscard]] double real(int column) const noexcept;
  [[nodiscard]] std::string_view text(int column) const;
  [[nodiscard]] std::span<const std::byte> blob(int column) const;

 private:
  void bind_int64(int parameter, std::int64_t value);
  /// Throws SqliteError unless `code` is SQLITE_OK.
  void check(int code) const;
  [[noreturn]] void fail(int code) const;

  struct Finalizer {
    void operator()(sqlite3_stmt* statement) const noexcept;
  };
  std::unique_ptr<sqlite3_stmt, Finalizer> statement_;
};

/// Resets a statement at the end of a scope.
class [[nodiscard]] StatementReset {
 public:
  explicit StatementReset(Statement& statement) noexcept : statement_(statement) {}
  ~StatementReset() { statement_.reset(); }
  StatementReset(const StatementReset&) = delete;
  StatementReset& operator=(const StatementReset&) = delete;

 private:
  Statement& statement_;
};

}  // namespace tidemark::detail
