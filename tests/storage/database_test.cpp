#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <sqlite3.h>

#include <tidemark/storage/detail/database.hpp>

#include "catch.hpp"

using tidemark::Errc;
using tidemark::detail::Database;
using tidemark::detail::SqliteError;
using tidemark::detail::Statement;
using tidemark::detail::StatementReset;

static_assert(!std::is_copy_constructible_v<Database>);
static_assert(std::is_nothrow_move_constructible_v<Database>);
static_assert(!std::is_copy_constructible_v<Statement>);
static_assert(std::is_nothrow_move_constructible_v<Statement>);

namespace {

constexpr int k_create = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "tidemark-db-XXXXXX").string();
    REQUIRE(mkdtemp(name.data()) != nullptr);
    path_ = name;
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  [[nodiscard]] std::string file(std::string_view name) const { return (path_ / name).string(); }

 private:
  std::filesystem::path path_;
};

Database memory() {
  return Database(":memory:", k_create);
}

/// The error that `action` throws.
template <typename F>
SqliteError error_of(F action) {
  try {
    action();
  } catch (const SqliteError& error) {
    return error;
  }
  FAIL("nothing was thrown");
  throw 0;
}

}  // namespace

TEST_CASE("a statement gives back what was bound") {
  Database db = memory();
  Statement select(db, "SELECT ?1, typeof(?1)");
  const auto round_trip = [&select](const auto& value, const auto& check) {
    const StatementReset reset(select);
    select.bind(1, value);
    REQUIRE(select.step());
    check();
    CHECK_FALSE(select.step());
  };
  for (const std::int64_t value :
       {std::int64_t{0}, std::int64_t{-1}, std::numeric_limits<std::int64_t>::max(),
        std::numeric_limits<std::int64_t>::min()}) {
    round_trip(value, [&] {
      CHECK(select.int64(0) == value);
      CHECK(select.text(1) == "integer");
    });
  }
  round_trip(std::uint64_t{5}, [&] { CHECK(select.int64(0) == 5); });
  round_trip(std::uint64_t{std::numeric_limits<std::int64_t>::max()},
             [&] { CHECK(select.int64(0) == std::numeric_limits<std::int64_t>::max()); });
  round_trip(7, [&] { CHECK(select.int64(0) == 7); });
  round_trip(true, [&] { CHECK(select.int64(0) == 1); });
  round_trip(0.5, [&] {
    CHECK(select.real(0) == 0.5);
    CHECK(select.text(1) == "real");
  });
  for (const std::string_view value : {std::string_view("text"), std::string_view("a\0b", 3),
                                       std::string_view(), std::string_view("\xC3\xA4")}) {
    round_trip(value, [&] {
      CHECK(select.text(1) == "text");
      CHECK(select.text(0) == value);
      CHECK_FALSE(select.is_null(0));
    });
  }
  round_trip("literal", [&] { CHECK(select.text(0) == "literal"); });
  round_trip(std::string("string"), [&] { CHECK(select.text(0) == "string"); });
  const std::vector<std::byte> bytes{std::byte{0}, std::byte{255}};
  round_trip(std::span<const std::byte>(bytes), [&] {
    CHECK(select.text(1) == "blob");
    const std::span<const std::byte> blob = select.blob(0);
    CHECK(std::vector<std::byte>(blob.begin(), blob.end()) == bytes);
  });
  round_trip(std::span<const std::byte>(), [&] {
    CHECK(select.text(1) == "blob");
    CHECK(select.blob(0).empty());
  });
  round_trip(std::nullopt, [&] {
    CHECK(select.is_null(0));
    CHECK(select.text(0).empty());
    CHECK(select.int64(0) == 0);
  });
  round_trip(std::optional<std::int64_t>(3), [&] { CHECK(select.int64(0) == 3); });
  round_trip(std::optional<std::int64_t>(), [&] { CHECK(select.is_null(0)); });
  round_trip(std::optional<std::string_view>("x"), [&] { CHECK(select.text(0) == "x"); });
}

TEST_CASE("bound bytes are copied") {
  Database db = memory();
  Statement select(db, "SELECT ?1");
  std::string text = "before";
  select.bind(1, text);
  text = "after!";
  REQUIRE(select.step());
  CHECK(select.text(0) == "before");
}

TEST_CASE("a reset forgets what was bound") {
  Database db = memory();
  Statement select(db, "SELECT ?1");
  {
    const StatementReset reset(select);
    select.bind(1, 1);
    REQUIRE(select.step());
  }
  REQUIRE(select.step());
  CHECK(select.is_null(0));
}

TEST_CASE("a statement runs many times and counts its changes") {
  Database db = memory();
  db.exec("CREATE TABLE t(a INTEGER PRIMARY KEY); INSERT INTO t VALUES (1), (2), (3)");
  CHECK(db.changes() == 3);
  Statement insert(db, "INSERT INTO t VALUES (?)");
  for (int i = 4; i < 10; ++i) {
    insert.bind(1, i);
    insert.run();
    CHECK(db.changes() == 1);
  }
  Statement remove(db, "DELETE FROM t WHERE a > ?");
  remove.bind(1, 100);
  remove.run();
  CHECK(db.changes() == 0);
  Statement count(db, "SELECT count(*) FROM t");
  REQUIRE(count.step());
  CHECK(count.int64(0) == 9);
}

TEST_CASE("an error has its extended code and says what was done") {
  Database db = memory();
  db.exec("CREATE TABLE t(a INTEGER PRIMARY KEY)");
  Statement insert(db, "INSERT INTO t VALUES (1)");
  insert.run();
  const SqliteError twice = error_of([&] { insert.run(); });
  CHECK(twice.code() == SQLITE_CONSTRAINT_PRIMARYKEY);
  CHECK(twice.primary_code() == SQLITE_CONSTRAINT);
  CHECK(std::string_view(twice.what()) ==
        "INSERT INTO t VALUES (1): constraint failed: UNIQUE constraint failed: t.a");
  db.exec("DELETE FROM t");
  insert.run();  // A failed run does not spoil the statement.

  CHECK(error_of([&] { db.exec("NONSENSE"); }).code() == SQLITE_ERROR);
  CHECK(error_of([&] { Statement(db, "SELECT * FROM nowhere"); }).primary_code() == SQLITE_ERROR);
  CHECK(error_of([&] { insert.bind(1, 1); }).primary_code() == SQLITE_RANGE);
}

TEST_CASE("a database that cannot be opened says which and why") {
  const TemporaryFolder folder;
  const SqliteError error =
      error_of([&] { Database(folder.file("none/a.db"), SQLITE_OPEN_READWRITE); });
  CHECK(error.primary_code() == SQLITE_CANTOPEN);
  CHECK(error.errc() == Errc::io_error);
  CHECK_THAT(error.what(), Catch::Matchers::Contains("a.db") &&
                               Catch::Matchers::Contains("No such file or directory"));
  CHECK(error_of([&] { Database(folder.file("b.db"), k_create, "no-such-vfs"); }).code() ==
        SQLITE_ERROR);
}

TEST_CASE("a file that is no database is corrupt") {
  const TemporaryFolder folder;
  std::ofstream(folder.file("a.db")) << std::string(4096, 'x');
  Database db(folder.file("a.db"), SQLITE_OPEN_READWRITE);
  const SqliteError error = error_of([&] { db.exec("SELECT * FROM sqlite_schema"); });
  CHECK(error.primary_code() == SQLITE_NOTADB);
  CHECK(error.errc() == Errc::corrupt);
}

TEST_CASE("a database that another connection writes is busy at once") {
  const TemporaryFolder folder;
  Database first(folder.file("a.db"), k_create);
  Database second(folder.file("a.db"), k_create);
  first.exec("CREATE TABLE t(a)");
  first.exec("BEGIN IMMEDIATE");
  const SqliteError error = error_of([&] { second.exec("BEGIN IMMEDIATE"); });
  CHECK(error.primary_code() == SQLITE_BUSY);
  CHECK(error.errc() == Errc::busy);
  first.exec("COMMIT");
  second.exec("BEGIN IMMEDIATE");
  CHECK(second.in_transaction());
}

TEST_CASE("a full database has no space") {
  const TemporaryFolder folder;
  Database db(folder.file("a.db"), k_create);
  db.exec("PRAGMA max_page_count = 2; CREATE TABLE t(a)");
  const SqliteError error = error_of([&] { db.exec("INSERT INTO t VALUES (zeroblob(100000))"); });
  CHECK(error.code() == SQLITE_FULL);
  CHECK(error.errc() == Errc::no_space);
}

TEST_CASE("a transaction is seen to be open or not") {
  Database db = memory();
  CHECK_FALSE(db.in_transaction());
  db.exec("BEGIN");
  CHECK(db.in_transaction());
  db.exec("ROLLBACK");
  CHECK_FALSE(db.in_transaction());
}

TEST_CASE("a connection and its statements stay one when they are moved") {
  Database empty;
  CHECK(empty.handle() == nullptr);
  Database db = memory();
  Statement select(db, "SELECT 42");
  empty = std::move(db);
  CHECK(db.handle() == nullptr);  // NOLINT(bugprone-use-after-move)
  Statement moved = std::move(select);
  REQUIRE(moved.step());
  CHECK(moved.int64(0) == 42);
}
