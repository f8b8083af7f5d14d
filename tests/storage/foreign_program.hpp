#pragma once

// What another implementation of the disk formats does to them, inside the test's own process.

#include <cerrno>
#include <cstdint>
#include <fcntl.h>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <sys/file.h>
#include <system_error>
#include <unistd.h>
#include <utility>

#include <sqlite3.h>

#include <tidemark/storage/detail/database.hpp>

#include "conformance.hpp"

namespace tidemark::test {

/// An open file, as plain system calls see it.
class PlainFile {
 public:
  explicit PlainFile(const std::filesystem::path& path, int flags = O_RDWR)
      : fd_(::open(path.c_str(), flags | O_CLOEXEC, 0666)) {
    check(fd_ >= 0, path.string());
  }
  ~PlainFile() { ::close(fd_); }
  PlainFile(const PlainFile&) = delete;
  PlainFile& operator=(const PlainFile&) = delete;

  void write(std::uint64_t offset, std::span<const std::byte> bytes) {
    const ssize_t written = ::pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    check(written == static_cast<ssize_t>(bytes.size()), "pwrite");
  }
  void sync() { check(::fsync(fd_) == 0, "fsync"); }
  void sync_filesystem() { check(::syncfs(fd_) == 0, "syncfs"); }
  /// Blocks until nobody else has it.
  void lock() { check(::flock(fd_, LOCK_EX) == 0, "flock"); }
  bool try_lock() { return ::flock(fd_, LOCK_EX | LOCK_NB) == 0; }
  void unlock() { check(::flock(fd_, LOCK_UN) == 0, "flock"); }

 private:
  static void check(bool good, const std::string& what) {
    if (!good) throw std::system_error(errno, std::generic_category(), what);
  }

  int fd_;
};

/// Whether somebody holds the lock of the file at `path`.
inline bool is_locked(const std::filesystem::path& path) {
  return !PlainFile(path).try_lock();
}

/// A program beside the storage on FOLDER/uploads.db and FOLDER/uploads, which syncs nothing.
class ForeignProgram {
 public:
  explicit ForeignProgram(const std::filesystem::path& folder)
      : folder_(folder),
        database_((folder / "uploads.db").string(), SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE) {
    sqlite3_busy_timeout(database_.handle(), 60'000);
    exec("PRAGMA synchronous = OFF");
  }

  std::filesystem::path path(std::string_view id) const { return folder_ / "uploads" / id; }

  void exec(const std::string& sql) { database_.exec(sql.c_str()); }
  /// The first column of the first row, as text; NULL and no row are nothing.
  std::optional<std::string> ask(const std::string& sql) {
    detail::Statement statement(database_, sql);
    if (!statement.step() || statement.is_null(0)) return std::nullopt;
    return std::string(statement.text(0));
  }
  std::int64_t ask_number(const std::string& sql) { return std::stoll(ask(sql).value()); }
  /// A column of an upload's row.
  std::optional<std::string> ask(std::string_view column, std::string_view id) {
    return ask("SELECT \"" + std::string(column) + "\" FROM uploads WHERE upload_id = '" +
               std::string(id) + "'");
  }
  std::int64_t offset(std::string_view id) { return std::stoll(ask("offset", id).value()); }
  bool has_row(std::string_view id) { return ask("upload_id", id).has_value(); }

  void create(std::string_view id, std::int64_t length) {
    exec("INSERT INTO uploads (upload_id, upload_length, metadata) VALUES ('" + std::string(id) +
         "', " + std::to_string(length) + ", '{}')");
    PlainFile(path(id), O_RDWR | O_CREAT);
  }
  void move_to(std::string_view id, std::uint64_t offset) {
    exec("UPDATE uploads SET offset = " + std::to_string(offset) + " WHERE upload_id = '" +
         std::string(id) + "'");
  }
  /// Writes the test bytes of `seed` and moves the offset.
  void append(std::string_view id, std::uint64_t seed, std::uint64_t offset, std::size_t count) {
    PlainFile(path(id)).write(offset, test_bytes(seed, offset, count));
    move_to(id, offset + count);
  }

 private:
  const std::filesystem::path folder_;
  detail::Database database_;
};

}  // namespace tidemark::test
