// Another implementation of the same disk formats, for tests that run it beside tidemark. It keeps
// the habits of the Python package: a SQLite connection for each operation, the journal mode left
// as found, five seconds of busy timeout, `flock` around the write alone, and nothing ever synced.
//
// foreign_writer DIR works on DIR/uploads.db and DIR/uploads/. It reads commands from standard
// input, one a line, until `quit`, and answers each with one line once it is done:
//
//   create ID LENGTH [METADATA_JSON] [EXPIRES]  ok
//   append ID OFFSET SEED LENGTH    ok NEW_OFFSET MICROS, or conflict OFFSET
//   get ID                          ok LENGTH OFFSET COMPLETED METADATA EXPIRES, or none
//   delete ID                       ok
//   lock ID, unlock ID              ok; the lock is held between the two, and used by `append`
//   begin, commit                   ok; a write transaction is held between the two
//   commits N                       ok MICROS, the longest of N offset commits back to back
//
// What fails is answered with `error TEXT`. `get` puts tabs between fields and shows NULL as `-`.
// `append` writes the bytes of test_bytes.hpp. MICROS are microseconds.

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <map>
#include <memory>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <sys/file.h>
#include <system_error>
#include <unistd.h>
#include <utility>
#include <vector>

#include <sqlite3.h>

#include "../test_bytes.hpp"

namespace {

using Clock = std::chrono::steady_clock;

/// Values as text, NULL as empty. The columns' affinity turns numbers back into numbers.
using Row = std::vector<std::optional<std::string>>;

std::int64_t micros_since(Clock::time_point start) {
  return std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - start).count();
}

class Connection {
 public:
  explicit Connection(const std::string& path) {
    const int result = sqlite3_open(path.c_str(), &handle_);
    connection_.reset(handle_);
    check(result);
    check(sqlite3_busy_timeout(handle_, 5000));
  }

  /// Runs one statement and returns its first row as text, empty when there is none.
  std::optional<Row> run(const std::string& sql, const Row& values = {}) {
    sqlite3_stmt* raw = nullptr;
    check(sqlite3_prepare_v2(handle_, sql.c_str(), -1, &raw, nullptr));
    const std::unique_ptr<sqlite3_stmt, decltype(&sqlite3_finalize)> statement(raw,
                                                                               &sqlite3_finalize);
    int index = 0;
    for (const auto& value : values) {
      check(sqlite3_bind_text(raw, ++index, value ? value->c_str() : nullptr, -1, nullptr));
    }
    const int result = sqlite3_step(raw);
    if (result == SQLITE_DONE) return std::nullopt;
    if (result != SQLITE_ROW) check(result);
    Row row;
    for (int column = 0; column < sqlite3_column_count(raw); ++column) {
      const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(raw, column));
      row.push_back(text == nullptr ? std::nullopt : std::optional<std::string>(text));
    }
    return row;
  }

  /// Runs one change in a transaction that begins without a lock, and returns the rows changed.
  int change(const std::string& sql, const Row& values) {
    run("BEGIN");
    run(sql, values);
    const int rows = sqlite3_changes(handle_);
    run("COMMIT");
    return rows;
  }

 private:
  void check(int result) const {
    if (result != SQLITE_OK) throw std::runtime_error(sqlite3_errmsg(handle_));
  }

  sqlite3* handle_ = nullptr;
  std::unique_ptr<sqlite3, decltype(&sqlite3_close)> connection_{nullptr, &sqlite3_close};
};

/// An open data file. Closing it releases its lock, which belongs to the open description.
using File = std::unique_ptr<std::FILE, decltype(&std::fclose)>;

void require(bool succeeded, const std::string& what) {
  if (!succeeded) throw std::system_error(errno, std::generic_category(), what);
}

File open_file(const std::string& path, const char* mode) {
  File file(std::fopen(path.c_str(), mode), &std::fclose);
  require(file != nullptr, path);
  return file;
}

File open_locked(const std::string& path) {
  File file = open_file(path, "r+be");
  require(::flock(::fileno(file.get()), LOCK_EX) == 0, "flock");
  return file;
}

void write_at(std::FILE* file, std::int64_t offset, const std::vector<std::byte>& bytes) {
  require(::fseeko(file, offset, SEEK_SET) == 0, "seek");
  const std::size_t written = std::fwrite(bytes.data(), 1, bytes.size(), file);
  require(written == bytes.size() && std::fflush(file) == 0, "write");
}

/// The commands. Each takes what is left of its line and returns the answer.
class ForeignWriter {
 public:
  explicit ForeignWriter(const std::filesystem::path& folder)
      : database_((folder / "uploads.db").string()), files_(folder / "uploads") {
    std::filesystem::create_directories(files_);
    Connection connection(database_);
    connection.run(
        "CREATE TABLE IF NOT EXISTS uploads (upload_id TEXT PRIMARY KEY, upload_length INTEGER NOT "
        "NULL, offset INTEGER DEFAULT 0, metadata TEXT, created_at TIMESTAMP DEFAULT "
        "CURRENT_TIMESTAMP, completed BOOLEAN DEFAULT 0)");
    try {
      connection.run("ALTER TABLE uploads ADD COLUMN expires_at TIMESTAMP");
    } catch (const std::runtime_error&) {  // The column is already there.
    }
  }

  std::string answer(const std::string& line) try {
    std::istringstream words(line);
    const auto command = next<std::string>(words);
    if (command == "create") return create(words);
    if (command == "append") return append(words);
    if (command == "commits") return commits(next<std::int64_t>(words));
    if (command == "begin") return begin();
    if (command == "commit") return commit();
    const auto id = next<std::string>(words);
    if (command == "get") return get(id);
    if (command == "delete") return remove(id);
    if (command == "lock") return lock(id);
    if (command == "unlock") return locked_.erase(id) == 1 ? "ok" : "error not locked";
    throw std::runtime_error("unknown command");
  } catch (const std::exception& error) {
    return std::string("error ") + error.what();
  }

 private:
  template <typename T>
  static T next(std::istringstream& words) {
    T value;
    if (!(words >> value)) throw std::runtime_error("an argument is missing");
    return value;
  }

  /// Metadata and the time are told apart by the braces, since both may contain spaces.
  std::string create(std::istringstream& words) {
    const auto id = next<std::string>(words);
    const auto length = next<std::int64_t>(words);
    std::string rest;
    std::getline(words >> std::ws, rest);
    std::string metadata = "{}";
    if (const auto end = rest.rfind('}'); rest.starts_with('{') && end != std::string::npos) {
      metadata = rest.substr(0, end + 1);
      rest.erase(0, rest.find_first_not_of(' ', end + 1));
    }
    insert(id, length, metadata, rest.empty() ? std::nullopt : std::optional(rest));
    return "ok";
  }

  void insert(const std::string& id, std::int64_t length, const std::string& metadata,
              const std::optional<std::string>& expires_at) {
    Connection(database_).change(
        "INSERT INTO uploads (upload_id, upload_length, metadata, expires_at) VALUES (?, ?, ?, ?)",
        {id, std::to_string(length), metadata, expires_at});
    open_file(path(id), "wbe");
  }

  /// Looks at the row before it takes the lock and lets go of the lock before it commits, as the
  /// Python server does.
  std::string append(std::istringstream& words) {
    const auto start = Clock::now();
    const auto id = next<std::string>(words);
    const auto offset = next<std::int64_t>(words);
    const auto seed = next<std::uint64_t>(words);
    const auto length = next<std::size_t>(words);
    const std::int64_t new_offset = offset + static_cast<std::int64_t>(length);
    if (committed_offset(id) != offset) return conflict(id);
    const auto bytes = tidemark::test::test_bytes(seed, static_cast<std::uint64_t>(offset), length);
    if (const auto held = locked_.find(id); held != locked_.end()) {
      write_at(held->second.get(), offset, bytes);
    } else {
      if (!std::filesystem::exists(path(id))) open_file(path(id), "wbe");
      write_at(open_locked(path(id)).get(), offset, bytes);
    }
    if (!update_offset(id, offset, new_offset)) return conflict(id);
    return "ok " + std::to_string(new_offset) + " " + std::to_string(micros_since(start));
  }

  std::int64_t committed_offset(const std::string& id) const {
    Connection connection(database_);
    const auto row = connection.run("SELECT offset FROM uploads WHERE upload_id = ?", {id});
    if (!row) throw std::runtime_error("no such upload");
    return std::stoll(row->at(0).value());
  }

  std::string conflict(const std::string& id) const {
    return "conflict " + std::to_string(committed_offset(id));
  }

  bool update_offset(const std::string& id, std::int64_t expected, std::int64_t next) const {
    return Connection(database_).change(
               "UPDATE uploads SET offset = ?, completed = (? >= upload_length)"
               " WHERE upload_id = ? AND offset = ?",
               {std::to_string(next), std::to_string(next), id, std::to_string(expected)}) > 0;
  }

  std::string get(const std::string& id) const {
    const auto row = Connection(database_).run(
        "SELECT upload_length, offset, completed, metadata, expires_at FROM uploads"
        " WHERE upload_id = ?",
        {id});
    if (!row) return "none";
    std::string line = "ok";
    for (const auto& column : *row) line += "\t" + column.value_or("-");
    return line;
  }

  std::string remove(const std::string& id) {
    Connection(database_).change("DELETE FROM uploads WHERE upload_id = ?", {id});
    std::filesystem::remove(path(id));
    return "ok";
  }

  std::string lock(const std::string& id) {
    if (locked_.contains(id)) return "error already locked";
    locked_.emplace(id, open_locked(path(id)));
    return "ok";
  }

  std::string begin() {
    auto transaction = std::make_unique<Connection>(database_);
    transaction->run("BEGIN IMMEDIATE");
    transaction_ = std::move(transaction);
    return "ok";
  }

  std::string commit() {
    if (!transaction_) return "error not begun";
    std::exchange(transaction_, nullptr)->run("COMMIT");
    return "ok";
  }

  std::string commits(std::int64_t count) {
    const std::string id = "foreign-commits-" + std::to_string(::getpid());
    insert(id, count + 1, "{}", {});
    std::int64_t longest = 0;
    for (std::int64_t offset = 0; offset < count; ++offset) {
      const auto start = Clock::now();
      if (!update_offset(id, offset, offset + 1)) throw std::runtime_error("a commit was lost");
      longest = std::max(longest, micros_since(start));
    }
    remove(id);
    return "ok " + std::to_string(longest);
  }

  std::string path(const std::string& id) const { return (files_ / id).string(); }

  std::string database_;
  std::filesystem::path files_;
  std::map<std::string, File> locked_;
  std::unique_ptr<Connection> transaction_;
};

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 2) throw std::runtime_error("usage: foreign_writer DIR");
  ForeignWriter writer(argv[1]);
  for (std::string line; std::getline(std::cin, line) && line != "quit";) {
    std::cout << writer.answer(line) << std::endl;
  }
} catch (const std::exception& error) {
  std::cerr << error.what() << '\n';
  return 1;
}
