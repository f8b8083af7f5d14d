#include "checker.hpp"

#include <algorithm>
#include <cerrno>
#include <fcntl.h>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <sys/stat.h>
#include <system_error>
#include <unistd.h>
#include <utility>

#include <sqlite3.h>

#include "../test_bytes.hpp"

namespace tidemark::crash {
namespace {

namespace fs = std::filesystem;

/// The whole file; nothing when there is none.
std::optional<std::vector<std::byte>> read_whole(const fs::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0 && errno == ENOENT) return std::nullopt;
  std::vector<std::byte> bytes;
  struct stat status {};
  bool good = fd >= 0 && ::fstat(fd, &status) == 0;
  if (good) {
    bytes.resize(static_cast<std::size_t>(status.st_size));
    for (std::size_t at = 0; good && at < bytes.size();) {
      const ssize_t got = ::pread(fd, &bytes[at], bytes.size() - at, static_cast<off_t>(at));
      good = got > 0;
      at += static_cast<std::size_t>(std::max<ssize_t>(got, 0));
    }
  }
  const int error = errno;
  if (fd >= 0) ::close(fd);
  if (!good) throw std::system_error(error, std::generic_category(), path.string());
  return bytes;
}

using Database = std::unique_ptr<sqlite3, decltype(&sqlite3_close)>;

Database open_database(const fs::path& path) {
  sqlite3* handle = nullptr;
  const int error = sqlite3_open_v2(path.c_str(), &handle, SQLITE_OPEN_READWRITE, nullptr);
  Database database(handle, &sqlite3_close);
  if (error != SQLITE_OK) throw std::runtime_error(sqlite3_errmsg(handle));
  return database;
}

/// Calls `each(statement)` for every row.
template <class Each>
void query(sqlite3* database, const char* sql, Each each) {
  sqlite3_stmt* handle = nullptr;
  int state = sqlite3_prepare_v2(database, sql, -1, &handle, nullptr);
  const std::unique_ptr<sqlite3_stmt, decltype(&sqlite3_finalize)> statement(handle,
                                                                             &sqlite3_finalize);
  if (state == SQLITE_OK) state = sqlite3_step(handle);
  for (; state == SQLITE_ROW; state = sqlite3_step(handle)) each(handle);
  if (state != SQLITE_DONE) throw std::runtime_error(sqlite3_errmsg(database));
}

std::string text_at(sqlite3_stmt* row, int column) {
  const auto* const text = reinterpret_cast<const char*>(sqlite3_column_text(row, column));
  return text == nullptr ? "" : text;
}

std::string text_of(std::uint64_t number) {
  return std::to_string(number);
}

/// How many of `bytes`, which begin at `position`, are those of `seed`.
std::size_t run_of(std::span<const std::byte> bytes, std::uint64_t seed, std::uint64_t position) {
  return test::first_wrong_byte(bytes, seed, position).value_or(bytes.size());
}

}  // namespace

bool Checker::record(const std::string& line, bool counts) {
  std::istringstream words(line);
  std::string kind;
  std::string id;
  words >> kind;
  if (kind == "ready" || kind == "full") return false;
  if (kind == "error") {
    if (counts) violation(line);
    return false;
  }
  words >> id;
  if (kind.ends_with("ing")) {
    intend(kind, uploads_[id], words);
  } else if (counts) {
    acknowledge(kind, id, uploads_[id], words);
    ++acknowledgements_;
  } else {
    return false;
  }
  if (words.fail()) throw std::runtime_error("a record that cannot be read: " + line);
  return !kind.ends_with("ing");
}

void Checker::intend(const std::string& kind, Upload& upload, std::istream& words) {
  if (kind == "creating" || kind == "measuring") {
    std::int64_t length = 0;
    words >> length;
    upload.lengths.insert(length);
  } else if (kind == "trying") {
    std::uint64_t seed = 0;
    words >> seed;
    upload.seeds.insert(seed);
  } else if (kind == "joining") {
    std::int64_t total = 0;
    for (Part part; words >> part.id >> part.length;) {
      total += static_cast<std::int64_t>(part.length);
      upload.parts.push_back(part);
    }
    words.clear();
    upload.lengths.insert(total);
  } else if (kind == "deleting") {
    upload.may_be_deleted = true;
  } else if (kind == "releasing") {
    upload.may_be_released = true;
  } else {
    words.setstate(std::ios::failbit);
  }
}

void Checker::acknowledge(const std::string& kind, const std::string& id, Upload& upload,
                          std::istream& words) {
  upload.exists = true;
  if (kind == "created" || kind == "measured") {
    std::int64_t length = 0;
    words >> length;
    // Another process may have told the length already.
    if (upload.length.value_or(-1) == -1) upload.length = length;
  } else if (kind == "committed") {
    acknowledge_bytes(id, upload, words);
  } else if (kind == "stands") {
    std::uint64_t offset = 0;
    words >> offset;
    upload.offset = std::max(upload.offset, offset);
  } else if (kind == "joined") {
    upload.is_complete = true;
  } else if (kind == "deleted") {
    upload.is_gone = true;
  } else if (kind == "released") {
    upload.is_gone = true;
    upload.is_released = true;
  } else {
    words.setstate(std::ios::failbit);
  }
}

void Checker::acknowledge_bytes(const std::string& id, Upload& upload, std::istream& words) {
  std::uint64_t from = 0;
  Piece piece;
  std::string state;
  words >> from >> piece.to >> piece.seed >> state;
  upload.offset = std::max(upload.offset, piece.to);
  if (state == "complete") upload.is_complete = true;
  if (from >= piece.to) return;
  const auto next = upload.known.lower_bound(from);
  const bool overlaps = (next != upload.known.end() && next->first < piece.to) ||
                        (next != upload.known.begin() && std::prev(next)->second.to > from);
  if (overlaps) {
    violation(id + ": bytes " + text_of(from) + " to " + text_of(piece.to) +
              " were acknowledged twice");
  } else {
    upload.known.emplace(from, piece);
  }
}

std::map<std::string, Checker::Row> Checker::read_rows() {
  std::map<std::string, Row> rows;
  const fs::path path = folder_ / "uploads.db";
  if (!fs::exists(path)) return rows;
  const Database database = open_database(path);
  query(database.get(), "PRAGMA integrity_check", [&](sqlite3_stmt* row) {
    if (text_at(row, 0) != "ok") violation("integrity_check: " + text_at(row, 0));
  });
  bool has_table = false;
  query(database.get(), "SELECT 1 FROM sqlite_schema WHERE name = 'uploads'",
        [&](sqlite3_stmt*) { has_table = true; });
  if (!has_table) return rows;
  query(database.get(), "SELECT upload_id, upload_length, \"offset\", completed FROM uploads",
        [&](sqlite3_stmt* row) {
          rows[text_at(row, 0)] = {
              .length = sqlite3_column_int64(row, 1),
              .offset = static_cast<std::uint64_t>(sqlite3_column_int64(row, 2)),
              .completed = sqlite3_column_int(row, 3) != 0};
        });
  return rows;
}

std::vector<std::string> Checker::check() {
  try {
    const std::map<std::string, Row> rows = read_rows();
    for (const auto& [id, row] : rows) {
      if (!uploads_.contains(id)) violation(id + ": a row of nobody");
    }
    for (auto& [id, upload] : uploads_) {
      if (const auto row = rows.find(id); row != rows.end()) {
        check_row(id, upload, row->second);
      } else {
        check_gone(id, upload);
      }
    }
    remove_orphans(rows);
  } catch (const std::exception& error) {
    violation(std::string("the files cannot be read: ") + error.what());
  }
  return std::exchange(violations_, {});
}

void Checker::check_length(const std::string& id, const Upload& upload, const Row& row) {
  const bool is_right = upload.length && *upload.length != -1
                            ? row.length == *upload.length
                            : row.length == -1 || upload.lengths.contains(row.length);
  if (!is_right) violation(id + ": its length is " + std::to_string(row.length));
}

void Checker::check_row(const std::string& id, Upload& upload, const Row& row) {
  if (upload.is_gone) return violation(id + ": it was removed, and is back");
  check_length(id, upload, row);
  if (row.offset < upload.offset) {
    violation(id + ": it stands at " + text_of(row.offset) + " of " + text_of(upload.offset) +
              " that were acknowledged");
  }
  const bool is_complete = row.length >= 0 && row.offset >= static_cast<std::uint64_t>(row.length);
  if (row.completed != is_complete) violation(id + ": `completed` is wrong");
  if (upload.is_complete && !is_complete) violation(id + ": it is no longer complete");

  const std::optional<std::vector<std::byte>> bytes = read_whole(folder_ / "uploads" / id);
  if (!bytes) return violation(id + ": a row without its file");
  if (bytes->size() < row.offset) {
    return violation(id + ": " + text_of(bytes->size()) + " bytes below the offset " +
                     text_of(row.offset));
  }
  if (is_complete && bytes->size() != static_cast<std::uint64_t>(row.length)) {
    violation(id + ": it is complete, but has " + text_of(bytes->size()) + " bytes of " +
              std::to_string(row.length));
  }
  std::map<std::uint64_t, Piece> found;
  if (!check_bytes(id, upload, Bytes(*bytes).first(row.offset), found)) return;
  upload.known.merge(found);
  upload.seeds.clear();  // Who has not written these bytes by now is gone,
  upload.may_be_deleted = upload.may_be_released = false;  // as is who was about to remove them.
  upload.exists = true;
  upload.is_complete = is_complete;
  upload.offset = row.offset;
  upload.length = row.length;
}

void Checker::check_gone(const std::string& id, Upload& upload) {
  const bool was_seen_gone = upload.is_gone && !upload.may_be_released;
  if (was_seen_gone) return;
  if (upload.exists && !upload.may_be_deleted && !upload.may_be_released) {
    violation(id + ": it was acknowledged, and has no row");
  }
  if (upload.may_be_released) check_released(id, upload);
  upload.may_be_released = false;  // It was found right, or reported.
  upload.is_gone = true;
}

void Checker::check_released(const std::string& id, const Upload& upload) {
  const fs::path path = folder_ / "released" / id;
  const std::optional<std::vector<std::byte>> bytes = read_whole(path);
  if (!bytes) {
    const bool is_lost = upload.is_released || (upload.exists && !upload.may_be_deleted);
    if (is_lost) violation(id + ": it was released, and is nowhere");
    return;
  }
  const auto size = static_cast<std::int64_t>(bytes->size());
  const bool is_whole =
      upload.length.value_or(-1) == -1 ? upload.lengths.contains(size) : *upload.length == size;
  if (!is_whole || bytes->size() < upload.offset) {
    violation(id + ": it was released with " + text_of(bytes->size()) + " bytes");
  }
  std::map<std::uint64_t, Piece> found;
  check_bytes(id, upload, *bytes, found);
  fs::remove(path);
}

bool Checker::check_bytes(const std::string& id, const Upload& upload, Bytes bytes,
                          std::map<std::uint64_t, Piece>& found) {
  if (!upload.parts.empty()) {
    for (const Part& part : upload.parts) {
      if (part.length > bytes.size()) return wrong(id + ": a part is missing");
      std::map<std::uint64_t, Piece> ignored;
      const Bytes own = bytes.first(part.length);
      if (!check_bytes(id + " of " + part.id, uploads_.at(part.id), own, ignored)) return false;
      bytes = bytes.subspan(part.length);
    }
    return true;
  }
  for (std::size_t at = 0; at < bytes.size();) {
    const auto next = upload.known.upper_bound(at);
    if (next != upload.known.begin() && std::prev(next)->second.to > at) {
      const Piece& piece = std::prev(next)->second;
      const std::size_t size = std::min<std::size_t>(piece.to, bytes.size()) - at;
      const std::size_t right = run_of(bytes.subspan(at, size), piece.seed, at);
      at += right;
      if (right == size) continue;
      return wrong(id + ": byte " + text_of(at) + " is not the acknowledged writer's");
    }
    const std::size_t end = next == upload.known.end()
                                ? bytes.size()
                                : std::min<std::size_t>(next->first, bytes.size());
    std::pair<std::size_t, std::uint64_t> longest{0, 0};
    for (const std::uint64_t seed : upload.seeds) {
      longest = std::max(longest, {run_of(bytes.subspan(at, end - at), seed, at), seed});
    }
    if (longest.first == 0) return wrong(id + ": byte " + text_of(at) + " is nobody's");
    found.emplace(at, Piece{at + longest.first, longest.second});
    at += longest.first;
  }
  return true;
}

void Checker::remove_orphans(const std::map<std::string, Row>& rows) {
  const fs::path folder = folder_ / "uploads";
  if (!fs::exists(folder)) return;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string id = entry.path().filename();
    if (rows.contains(id)) continue;
    if (!uploads_.contains(id)) violation(id + ": a file of nobody");
    fs::remove(entry.path());
  }
}

}  // namespace tidemark::crash
