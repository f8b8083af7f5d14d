#pragma once

// What the tests of examples/ingest.cpp share.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <sqlite3.h>

#include "../file_tools.hpp"
#include "../program.hpp"
#include "../temporary_folder.hpp"
#include "../test_bytes.hpp"
#include "example_program.hpp"

namespace tidemark::test {

/// The test bytes of `seed` as text.
inline std::string test_text(std::uint64_t seed, std::size_t count) {
  std::string text(count, '\0');
  fill_test_bytes(std::as_writable_bytes(std::span(text)), seed, 0);
  return text;
}

/// The digest by another program.
inline std::string sha256_of(const std::filesystem::path& file) {
  return run_program("/usr/bin/sha256sum", {file.string()}).output.substr(0, 64);
}

/// The offset in the row of upload `id`, through another connection; empty when there is none, or
/// no database yet.
inline std::optional<std::uint64_t> row_offset(const std::filesystem::path& database,
                                               std::string_view id) {
  sqlite3* db = nullptr;
  sqlite3_stmt* statement = nullptr;
  std::optional<std::uint64_t> offset;
  if (sqlite3_open_v2(database.c_str(), &db, SQLITE_OPEN_READWRITE, nullptr) == SQLITE_OK &&
      sqlite3_prepare_v2(db, "SELECT offset FROM uploads WHERE upload_id = ?", -1, &statement,
                         nullptr) == SQLITE_OK &&
      sqlite3_bind_text(statement, 1, id.data(), static_cast<int>(id.size()), nullptr) ==
          SQLITE_OK &&
      sqlite3_step(statement) == SQLITE_ROW) {
    offset = static_cast<std::uint64_t>(sqlite3_column_int64(statement, 0));
  }
  sqlite3_finalize(statement);
  sqlite3_close(db);
  return offset;
}

/// A folder with files to ingest, and with `data` of ingest in it.
struct IngestFixture {
  TemporaryFolder folder;
  std::filesystem::path data = folder / "data";
  std::filesystem::path database = data / "uploads.db";

  std::filesystem::path stored(std::string_view id) const { return data / "uploads" / id; }

  /// A file in the folder.
  std::filesystem::path make_file(std::string_view name, std::string_view text) const {
    write_contents(folder / name, text);
    return folder / name;
  }

  ExampleResult ingest(const std::filesystem::path& file, std::vector<std::string> options = {}) {
    options.insert(options.end(), {"--data", data.string(), file.string()});
    return run_example(folder.path(), "ingest", std::move(options));
  }
};

}  // namespace tidemark::test
