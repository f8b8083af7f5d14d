#include <fstream>
#include <optional>
#include <string>
#include <vector>

#include <sqlite3.h>

#include <tidemark/storage/detail/database.hpp>
#include <tidemark/storage/detail/schema.hpp>
#include <tidemark/storage/storage_error.hpp>

#include "catch.hpp"
#include "temporary_folder.hpp"

using namespace tidemark;
using namespace tidemark::detail;
using Catch::Matchers::Contains;

namespace {

constexpr const char* k_oldest_table =
    "CREATE TABLE uploads (upload_id TEXT PRIMARY KEY, upload_length INTEGER NOT NULL, "
    "offset INTEGER DEFAULT 0, metadata TEXT, created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP, "
    "completed BOOLEAN DEFAULT 0)";

Database open(const std::string& path) {
  return Database(path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE);
}

/// The first column of all rows.
std::vector<std::string> query(const Database& db, std::string_view sql) {
  Statement statement(db, sql);
  std::vector<std::string> rows;
  while (statement.step()) rows.emplace_back(statement.text(0));
  return rows;
}

std::string first(const Database& db, std::string_view sql) {
  const std::vector<std::string> rows = query(db, sql);
  REQUIRE(rows.size() == 1);
  return rows.front();
}

std::vector<std::string> column_names(const Database& db) {
  return query(db, "SELECT name FROM pragma_table_info('uploads')");
}

const std::vector<std::string> k_all_columns{
    "upload_id", "upload_length", "offset",     "metadata",           "created_at",
    "completed", "expires_at",    "is_partial", "concat_partial_ids", "metadata_extra"};

/// Why a database with this one statement is refused; empty when it is not.
std::string refusal(const char* sql) {
  Database db = open(":memory:");
  db.exec(sql);
  const std::vector<std::string> before = query(db, "SELECT sql FROM sqlite_schema");
  try {
    create_schema(db);
  } catch (const StorageError& error) {
    CHECK(error.code() == Errc::corrupt);
    CHECK(query(db, "SELECT sql FROM sqlite_schema") == before);
    CHECK_FALSE(db.in_transaction());
    return error.what();
  }
  return {};
}

void insert(Database& db, const char* id, std::int64_t length, std::int64_t offset,
            std::optional<std::string> expires_at = std::nullopt) {
  Statement statement(db, k_insert_upload);
  statement.bind(1, id);
  statement.bind(2, length);
  statement.bind(3, offset);
  statement.bind(4, "{}");
  statement.bind(5, "2024-01-01 00:00:00");
  statement.bind(6, expires_at);
  statement.bind(7, false);
  statement.run();
}

}  // namespace

TEST_CASE("a new database gets the table of the format") {
  Database db = open(":memory:");
  create_schema(db);
  CHECK(column_names(db) == k_all_columns);
  CHECK_NOTHROW(check_schema(db));

  // What another implementation inserts and leaves out.
  db.exec("INSERT INTO uploads (upload_id, upload_length, metadata) VALUES ('a', 5, '{}')");
  CHECK(first(db, "SELECT \"offset\" FROM uploads") == "0");
  CHECK(first(db, "SELECT completed FROM uploads") == "0");
  CHECK(first(db, "SELECT is_partial FROM uploads") == "0");
  CHECK(first(db, "SELECT length(created_at) FROM uploads") == "19");
  CHECK_THROWS_AS(db.exec("INSERT INTO uploads (upload_id, upload_length) VALUES ('a', 1)"),
                  SqliteError);
  CHECK_THROWS_AS(db.exec("INSERT INTO uploads (upload_id) VALUES ('b')"), SqliteError);
}

TEST_CASE("an older database gets what it lacks and keeps what it has") {
  Database db = open(":memory:");
  db.exec(k_oldest_table);
  db.exec("ALTER TABLE uploads ADD COLUMN owner TEXT");
  db.exec("CREATE TABLE others (a)");
  db.exec("INSERT INTO uploads (upload_id, upload_length, owner) VALUES ('a', 7, 'me')");
  create_schema(db);

  const std::vector<std::string> expected{
      "upload_id",  "upload_length",      "offset",        "metadata",
      "created_at", "completed",          "owner",         "expires_at",
      "is_partial", "concat_partial_ids", "metadata_extra"};
  CHECK(column_names(db) == expected);
  CHECK(first(db, "SELECT upload_length || owner || is_partial FROM uploads") == "7me0");
  CHECK(first(db, "SELECT name FROM sqlite_schema WHERE name = 'others'") == "others");
  CHECK_NOTHROW(check_schema(db));
}

TEST_CASE("the smallest table that is accepted") {
  Database db = open(":memory:");
  db.exec("CREATE TABLE Uploads (Upload_ID TEXT PRIMARY KEY, UPLOAD_LENGTH, Offset)");
  create_schema(db);
  insert(db, "a", 5, 5);
  CHECK(first(db, "SELECT completed || created_at FROM uploads") == "12024-01-01 00:00:00");
}

TEST_CASE("a database that has everything is only read") {
  const test::TemporaryFolder folder;
  const std::string path = (folder.path() / "uploads.db").string();
  Database db = open(path);
  create_schema(db);

  Database other = open(path);
  other.exec("BEGIN IMMEDIATE");
  CHECK_NOTHROW(create_schema(db));

  other.exec("DROP INDEX uploads_expiring");
  other.exec("COMMIT");
  other.exec("BEGIN IMMEDIATE");
  // Now something is to be written, and the other one is writing.
  CHECK_THROWS_AS(create_schema(db), SqliteError);
  CHECK_FALSE(db.in_transaction());
  other.exec("COMMIT");
  create_schema(db);
  CHECK(query(db, "SELECT name FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL") ==
        std::vector<std::string>{"uploads_expiring"});
}

TEST_CASE("a read-only database of the format passes the check") {
  const test::TemporaryFolder folder;
  const std::string path = (folder.path() / "uploads.db").string();
  {
    Database db = open(path);
    create_schema(db);
  }
  Database db(path, SQLITE_OPEN_READONLY);
  CHECK_NOTHROW(check_schema(db));
  CHECK_NOTHROW(create_schema(db));
}

TEST_CASE("foreign tables are refused and left as they are") {
  CHECK_THAT(refusal("CREATE TABLE uploads (a)"), Contains("no column upload_id"));
  CHECK_THAT(refusal("CREATE TABLE uploads (upload_id TEXT PRIMARY KEY, upload_length)"),
             Contains("no column offset"));
  CHECK_THAT(refusal("CREATE TABLE uploads (upload_id TEXT PRIMARY KEY, offset)"),
             Contains("no column upload_length"));
  CHECK_THAT(refusal("CREATE TABLE uploads (upload_id TEXT, upload_length, offset)"),
             Contains("not the primary key"));
  CHECK_THAT(refusal("CREATE TABLE uploads (upload_id TEXT, upload_length, offset, n, "
                     "PRIMARY KEY (upload_id, n))"),
             Contains("not the primary key"));
  CHECK_THAT(refusal("CREATE VIEW uploads AS SELECT 1 AS upload_id"), Contains("a kind of view"));
  CHECK_THAT(refusal("CREATE TABLE uploads (upload_id TEXT PRIMARY KEY, upload_length, offset, "
                     "tenant TEXT NOT NULL)"),
             Contains("unknown column tenant"));
  CHECK_THAT(refusal("CREATE TABLE uploads (upload_id TEXT PRIMARY KEY, upload_length, offset, "
                     "expires_at TEXT NOT NULL)"),
             Contains("expires_at") && Contains("refuses NULL"));
  CHECK(refusal("CREATE TABLE uploads (upload_id TEXT PRIMARY KEY NOT NULL, upload_length, offset, "
                "metadata TEXT NOT NULL, tenant TEXT NOT NULL DEFAULT 'all')")
            .empty());
}

TEST_CASE("a database without the table fails the check") {
  Database db = open(":memory:");
  CHECK_THROWS_WITH(check_schema(db), Contains("no table uploads"));
  db.exec("CREATE TABLE others (uploads)");
  CHECK_THROWS_AS(check_schema(db), StorageError);
}

TEST_CASE("a file that is no database is named and kept") {
  const test::TemporaryFolder folder;
  const std::string path = (folder.path() / "uploads.db").string();
  const std::string text(5000, 'x');
  std::ofstream(path) << text;
  {
    Database db = open(path);
    CHECK_THROWS_WITH(create_schema(db), Contains(path) && Contains("not a database"));
    CHECK_THROWS_AS(check_schema(db), StorageError);
  }
  std::ifstream file(path);
  CHECK(std::string(std::istreambuf_iterator<char>(file), {}) == text);
}

TEST_CASE("expired rows are found through the index") {
  Database db = open(":memory:");
  create_schema(db);
  insert(db, "long-ago", 5, 0, "1999-12-31T23:59:59+00:00");
  insert(db, "elsewhere", -1, 9, "2000-01-01T01:30:00+02:00");
  insert(db, "finished", 5, 5, "1999-12-31T23:59:59+00:00");
  insert(db, "later", 5, 0, "2000-01-01 00:00:01");
  insert(db, "never", 5, 0);

  const std::string sql = "SELECT upload_id FROM uploads WHERE " TIDEMARK_EXPIRING_ROWS
                          " AND julianday(expires_at) <= julianday('2000-01-01')";
  CHECK(query(db, sql) == std::vector<std::string>{"elsewhere", "long-ago"});
  Statement plan(db, "EXPLAIN QUERY PLAN " + sql);
  REQUIRE(plan.step());
  CHECK_THAT(std::string(plan.text(3)), Contains("uploads_expiring"));
}
