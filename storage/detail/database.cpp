#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>

#include <sqlite3.h>

#include <tidemark/engine/assert.hpp>
#include <tidemark/storage/detail/database.hpp>

namespace tidemark::detail {
namespace {

std::string describe(sqlite3* db, int code, std::string_view action) {
  if ((code & 0xff) == SQLITE_NOMEM) throw std::bad_alloc();
  std::string text(action);
  text.append(": ").append(sqlite3_errstr(code));
  if (db == nullptr) {
    return text;
  }
  // The connection's message is about its last call, which may not be the one that failed.
  if (const std::string_view message = sqlite3_errmsg(db);
      sqlite3_extended_errcode(db) == code && message != sqlite3_errstr(code)) {
    text.append(": ").append(message);
  }
  const int primary = code & 0xff;
  const int system_error = sqlite3_system_errno(db);
  if (system_error != 0 && (primary == SQLITE_IOERR || primary == SQLITE_CANTOPEN)) {
    text.append(": ").append(std::generic_category().message(system_error));
  }
  return text;
}

}  // namespace

SqliteError::SqliteError(sqlite3* db, int code, std::string_view action)
    : std::runtime_error(describe(db, code, action)), code_(code) {}

Errc SqliteError::errc() const noexcept {
  switch (primary_code()) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return Errc::busy;
    case SQLITE_FULL:
      return Errc::no_space;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return Errc::corrupt;
    default:
      return Errc::io_error;
  }
}

void Database::Closer::operator()(sqlite3* db) const noexcept {
  const int code = sqlite3_close(db);
  TIDEMARK_ASSERT(code == SQLITE_OK, "a connection outlives its statements and backups");
}

Database::Database(const std::string& path, int flags, const char* vfs) {
  sqlite3* db = nullptr;
  const int code = sqlite3_open_v2(path.c_str(), &db, flags | SQLITE_OPEN_EXRESCODE, vfs);
  db_.reset(db);  // A failed open leaves a connection too, which holds the message.
  if (code != SQLITE_OK) {
    throw SqliteError(db, code, "open database '" + path + "'");
  }
}

void Database::exec(const char* sql) {
  TIDEMARK_ASSERT(db_, "the database is open");
  if (const int code = sqlite3_exec(db_.get(), sql, nullptr, nullptr, nullptr); code != SQLITE_OK) {
    throw SqliteError(db_.get(), code, sql);
  }
}

std::int64_t Database::changes() const noexcept {
  TIDEMARK_ASSERT(db_, "the database is open");
  return sqlite3_changes64(db_.get());
}

bool Database::in_transaction() const noexcept {
  TIDEMARK_ASSERT(db_, "the database is open");
  return sqlite3_get_autocommit(db_.get()) == 0;
}

void Statement::Finalizer::operator()(sqlite3_stmt* statement) const noexcept {
  // The answer repeats the error of the last step.
  sqlite3_finalize(statement);
}

Statement::Statement(const Database& db, std::string_view sql) {
  TIDEMARK_ASSERT(db.handle() != nullptr, "the database is open");
  sqlite3_stmt* statement = nullptr;
  const int code = sqlite3_prepare_v3(db.handle(), sql.data(), static_cast<int>(sql.size()),
                                      SQLITE_PREPARE_PERSISTENT, &statement, nullptr);
  if (code != SQLITE_OK) {
    throw SqliteError(db.handle(), code, sql);
  }
  TIDEMARK_ASSERT(statement != nullptr, "a statement is more than a comment");
  statement_.reset(statement);
}

void Statement::bind_int64(int parameter, std::int64_t value) {
  check(sqlite3_bind_int64(statement_.get(), parameter, value));
}

void Statement::bind(int parameter, double value) {
  check(sqlite3_bind_double(statement_.get(), parameter, value));
}

void Statement::bind(int parameter, std::string_view text) {
  // SQLite takes a null pointer for NULL, which an empty view is not.
  const char* const data = text.empty() ? "" : text.data();
  check(sqlite3_bind_text64(statement_.get(), parameter, data, text.size(), SQLITE_TRANSIENT,
                            SQLITE_UTF8));
}

void Statement::bind(int parameter, std::span<const std::byte> blob) {
  const void* const data = blob.empty() ? static_cast<const void*>("") : blob.data();
  check(
      sqlite3_bind_blob64(statement_.get(), parameter, data, blob.size_bytes(), SQLITE_TRANSIENT));
}

void Statement::bind(int parameter, std::nullopt_t) {
  check(sqlite3_bind_null(statement_.get(), parameter));
}

bool Statement::step() {
  const int code = sqlite3_step(statement_.get());
  if (code != SQLITE_ROW && code != SQLITE_DONE) {
    fail(code);
  }
  return code == SQLITE_ROW;
}

void Statement::run() {
  const StatementReset reset(*this);
  const bool row = step();
  TIDEMARK_ASSERT(!row, "a statement that is run answers no rows");
}

void Statement::reset() noexcept {
  sqlite3_reset(statement_.get());
  sqlite3_clear_bindings(statement_.get());
}

bool Statement::is_null(int column) const noexcept {
  return sqlite3_column_type(statement_.get(), column) == SQLITE_NULL;
}

bool Statement::is_integer(int column) const noexcept {
  return sqlite3_column_type(statement_.get(), column) == SQLITE_INTEGER;
}

std::int64_t Statement::int64(int column) const noexcept {
  return sqlite3_column_int64(statement_.get(), column);
}

double Statement::real(int column) const noexcept {
  return sqlite3_column_double(statement_.get(), column);
}

std::string_view Statement::text(int column) const {
  const auto* const data =
      reinterpret_cast<const char*>(sqlite3_column_text(statement_.get(), column));
  if (data == nullptr) {
    if (sqlite3_errcode(sqlite3_db_handle(statement_.get())) == SQLITE_NOMEM) {
      throw std::bad_alloc();
    }
    return {};
  }
  return {data, static_cast<std::size_t>(sqlite3_column_bytes(statement_.get(), column))};
}

std::span<const std::byte> Statement::blob(int column) const {
  const auto* const data =
      static_cast<const std::byte*>(sqlite3_column_blob(statement_.get(), column));
  if (data == nullptr) {
    if (sqlite3_errcode(sqlite3_db_handle(statement_.get())) == SQLITE_NOMEM) {
      throw std::bad_alloc();
    }
    return {};
  }
  return {data, static_cast<std::size_t>(sqlite3_column_bytes(statement_.get(), column))};
}

void Statement::check(int code) const {
  if (code != SQLITE_OK) {
    fail(code);
  }
}

void Statement::fail(int code) const {
  throw SqliteError(sqlite3_db_handle(statement_.get()), code, sqlite3_sql(statement_.get()));
}

}  // namespace tidemark::detail
