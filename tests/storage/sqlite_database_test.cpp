// SQLiteStorage and its database: what it opens, shares, refuses and survives.

#include <array>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <tidemark/engine/when_all.hpp>

#include "log_vfs.hpp"
#include "sqlite_protocol.hpp"

using namespace tidemark;
using namespace tidemark::test;
using namespace std::chrono_literals;
namespace fs = std::filesystem;

namespace {

constexpr const char* k_first_table =
    "CREATE TABLE uploads (upload_id TEXT PRIMARY KEY, upload_length INTEGER NOT NULL, "
    "offset INTEGER DEFAULT 0, metadata TEXT, created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP, "
    "completed BOOLEAN DEFAULT 0)";

/// An engine without a storage yet, on a folder where one may be.
struct UnopenedFixture : SqliteFolder, FaultFixture {
  StorageOptions options{.db_path = folder / "uploads.db", .upload_dir = folder / "uploads"};

  std::error_code open_error() {
    try {
      const auto storage = sync_wait(engine, SQLiteStorage::open(engine, options));
      sync_wait(storage->executor(), storage->close(60s));
    } catch (const StorageError& error) {
      message = error.what();
      return error.code();
    }
    return {};
  }

  std::string message;
};

/// A database of another program, not open, with one upload called `id`.
std::string make_database(const fs::path& folder, std::string_view id) {
  fs::create_directories(folder / "uploads");
  {
    ForeignProgram other(folder);
    other.exec(k_first_table);
    other.create(id, 10'000);
  }
  return contents(folder / "uploads.db");
}

Task<bool> append_all(Storage& storage, UploadId id, std::uint64_t length, std::uint64_t step) {
  for (std::uint64_t offset = 0; offset < length; offset += step) {
    const AppendResult result = co_await append_test_bytes(storage, id, 1, offset, step);
    if (result.offset != offset + step) co_return false;
  }
  co_return true;
}

}  // namespace

TEST_CASE_METHOD(SqliteFolder, "an older database is taken over with its uploads") {
  fs::create_directory(folder / "uploads");
  {
    ForeignProgram old(folder.path());
    old.exec(k_first_table);
    old.create("a", 10'000);
    old.append("a", 1, 0, 5000);
    old.create("deferred", -1);
    old.exec("UPDATE uploads SET metadata = '{\"filename\": \"x\"}'");
  }
  ProtocolStore store(folder.path());
  const Upload upload = store.wait((*store).get_upload("a")).value();
  CHECK(upload.metadata == Metadata{{"filename", "x"}});
  CHECK_FALSE(upload.expires_at.has_value());
  CHECK_FALSE(upload.is_partial);
  CHECK(upload.parts.empty());
  store.wait((*store).set_expiry("a", store.environment.system_now() + 1h));
  CHECK(store.foreign.ask("expires_at", "a") == "2024-05-06T13:53:20.123456+00:00");
  store.check_and_finish("a", 5000, 10'000);
  store.append("deferred", 0, 10);
  store.check_upload("deferred", 10);
}

TEST_CASE_METHOD(SqliteFolder, "a newer database keeps what is unknown in it") {
  { ProtocolStore store(folder.path()); }
  {
    ForeignProgram newer(folder.path());
    newer.exec("ALTER TABLE uploads ADD COLUMN owner TEXT DEFAULT 'nobody'");
    newer.exec("ALTER TABLE uploads ADD COLUMN weight REAL NOT NULL DEFAULT 1.5");
    newer.exec("CREATE TABLE extras (upload_id TEXT, note TEXT)");
    newer.exec("CREATE INDEX by_owner ON uploads (owner)");
    newer.exec("INSERT INTO extras VALUES ('a', 'kept')");
    newer.exec("PRAGMA user_version = 7");
  }
  ProtocolStore store(folder.path());
  store.create("a", 10'000);
  store.foreign.exec("UPDATE uploads SET owner = 'me', weight = 2.5");
  store.wait((*store).set_metadata("a", Metadata{{"k", "v"}}));
  store.check_and_finish("a", 0, 10'000);
  CHECK(store.foreign.ask("owner", "a") == "me");
  CHECK(store.foreign.ask("weight", "a") == "2.5");
  CHECK(store.foreign.ask("SELECT note FROM extras") == "kept");
  CHECK(store.foreign.ask("PRAGMA user_version") == "7");
  store.create("b", 10);
  CHECK(store.foreign.ask("owner", "b") == "nobody");
}

TEST_CASE_METHOD(UnopenedFixture, "a new database beside files of uploads is refused") {
  {
    SqliteStore store(folder.path());
    store.wait(store->create_upload("a", 3, Metadata()));
    store.close();
  }
  const auto how = GENERATE(as<std::string>{}, "missing", "empty", "of another program");
  CAPTURE(how);
  fs::rename(folder / "uploads.db", folder / "kept.db");
  if (how != "missing") std::ofstream(folder / "uploads.db").flush();
  if (how == "of another program") {
    detail::Database(options.db_path.string(), SQLITE_OPEN_READWRITE).exec("CREATE TABLE x (y)");
  }
  for (int i = 0; i < 2; ++i) {
    CHECK(open_error() == Errc::corrupt);
    CHECK_THAT(message, Catch::Matchers::Contains("it is new, but the upload folder has files"));
  }
  CHECK(fs::exists(folder / "uploads" / "a"));
  fs::rename(folder / "kept.db", folder / "uploads.db");
  CHECK_FALSE(open_error());

  // What is no upload by its name is no reason.
  fs::remove(folder / "uploads.db");
  fs::rename(folder / "uploads" / "a", folder / "uploads" / "a.jpg");
  CHECK_FALSE(open_error());
}

TEST_CASE_METHOD(UnopenedFixture, "a place that is not named is refused") {
  const auto where = GENERATE(&StorageOptions::db_path, &StorageOptions::upload_dir);
  options.*where = "";
  CHECK(open_error() == Errc::invalid_argument);
}

TEST_CASE_METHOD(UnopenedFixture, "relative paths mean the same when the process has moved") {
  const fs::path before = fs::current_path();
  fs::current_path(folder.path());
  options = {.db_path = "uploads.db", .upload_dir = "uploads"};
  const auto storage = sync_wait(engine, SQLiteStorage::open(engine, options));
  fs::current_path("/");
  sync_wait(storage->executor(), storage->create_upload("a", 10, Metadata()));
  sync_wait(storage->executor(), storage->backup(folder / "copy.db"));
  CHECK(fs::exists(folder / "copy.db"));
  CHECK(sync_wait(storage->executor(), storage->sweep()).orphan_files.empty());
  CHECK(storage->get_file_path("a") == folder / "uploads" / "a");
  sync_wait(storage->executor(), storage->close(60s));
  fs::current_path(before);
}

TEST_CASE_METHOD(UnopenedFixture, "a file that is no database of uploads is left as it is") {
  const std::string kind = GENERATE("text", "another table", "view", "cut short");
  CAPTURE(kind);
  if (kind == "text") {
    write_contents(options.db_path, std::string(5000, 'x'));
  } else {
    ForeignProgram other(folder.path());
    if (kind == "another table") other.exec("CREATE TABLE uploads (id INTEGER, name TEXT)");
    if (kind == "view") other.exec("CREATE VIEW uploads AS SELECT 1 AS upload_id");
    if (kind == "cut short") {
      other.exec(k_first_table);
      other.exec("CREATE TABLE filler AS SELECT zeroblob(100000) AS bytes");
    }
  }
  if (kind == "cut short") fs::resize_file(options.db_path, 3000);
  const std::string before = contents(options.db_path);
  CHECK(open_error() == Errc::corrupt);
  CHECK_THAT(message, Catch::Matchers::Contains("uploads.db"));
  CHECK(contents(options.db_path) == before);
}

TEST_CASE_METHOD(UnopenedFixture, "what is missing around the database is made") {
  options.db_path = folder / "some" / "where" / "uploads.db";
  options.upload_dir = folder / "else" / "where";
  CHECK_FALSE(open_error());
  CHECK(fs::exists(options.db_path));
  CHECK(fs::is_directory(options.upload_dir));
  options.db_path = folder.path();
  CHECK(open_error() == Errc::io_error);
}

TEST_CASE_METHOD(SqliteFolder, "an empty log that a crash left does not pass for one in use") {
  make_database(folder.path(), "a");
  std::ofstream(folder / "uploads.db-wal").close();
  {
    ProtocolStore store(folder.path());
    CHECK(store.append("a", 0, 10) == committed(10));
    CHECK(fs::file_size(folder / "uploads.db-wal") > 0);
  }
  const std::string header = contents(folder / "uploads.db").substr(18, 2);
  CHECK(header == "\2\2");  // The versions of the format that has a log, for writers and readers.
}

TEST_CASE_METHOD(UnopenedFixture, "a network file system is refused unless it is allowed") {
  environment.on_submit([](const Operation& operation, std::uint64_t) {
    if (operation.kind != Operation::Kind::stat_filesystem) return Fault::none();
    *operation.filesystem = {};
    operation.filesystem->f_type = 0x6969;  // NFS_SUPER_MAGIC.
    return Fault::answer(0);
  });
  CHECK(open_error() == Errc::invalid_argument);
  CHECK_FALSE(fs::exists(options.db_path));
  options.allow_network_filesystem = true;
  CHECK_FALSE(open_error());
}

TEST_CASE_METHOD(FaultFixture, "a database is not taken for an upload") {
  const TemporaryFolder folder;
  const auto open_error = [&](const char* database) {
    StorageOptions options{.db_path = folder / database, .upload_dir = folder.path()};
    return error_of(executor, [](Engine& with, StorageOptions chosen) -> Task<void> {
      const auto storage = co_await SQLiteStorage::open(with, std::move(chosen));
      co_await storage->close(5s);
    }(engine, std::move(options)));
  };
  CHECK(open_error("index") == Errc::invalid_argument);
  CHECK_FALSE(fs::exists(folder / "index"));
  CHECK_FALSE(open_error("uploads.db"));
}

TEST_CASE_METHOD(ProtocolFixture, "a page has no more rows than there are") {
  create("a", 1);
  create("b", 1);
  const auto ids_of = [&](std::size_t limit) {
    return wait((**this).list_uploads(std::nullopt, limit)).uploads.size();
  };
  CHECK(ids_of(1) == 1);
  CHECK(ids_of(2) == 2);
  CHECK(ids_of(std::numeric_limits<std::size_t>::max()) == 2);
}

TEST_CASE_METHOD(UnopenedFixture, "a database that stays locked is busy") {
  ForeignProgram other(folder.path());
  other.exec("BEGIN EXCLUSIVE");
  options.commit_timeout = 1ms;
  CHECK(open_error() == Errc::busy);
  other.exec("COMMIT");
  CHECK_FALSE(open_error());
}

TEST_CASE_METHOD(UnopenedFixture, "a database that is locked for a while is waited for") {
  ForeignProgram other(folder.path());
  other.exec("BEGIN EXCLUSIVE");
  RunningTask opening(environment, executor, SQLiteStorage::open(engine, options));
  other.exec("COMMIT");
  const auto storage = opening.get();
  sync_wait(storage->executor(), storage->close(60s));
}

TEST_CASE_METHOD(SqliteFolder, "an append to a locked database is busy, and then goes on") {
  ProtocolStore store(folder.path(), {.commit_timeout = 1ms});
  store.create_at("a", 5000, 10'000);
  store.foreign.exec("BEGIN IMMEDIATE");
  CHECK(store.append_error("a", 5000, 100) == Errc::busy);
  CHECK(store.error_of((*store).set_length("a", 5)) == Errc::busy);
  // Readers never wait for a writer.
  CHECK(store.wait((*store).get_upload("a"))->offset == 5000);
  store.foreign.exec("COMMIT");
  store.check_and_finish("a", 5000, 10'000);
}

TEST_CASE_METHOD(SqliteFolder, "an append waits for a locked database") {
  ProtocolStore store(folder.path());
  store.create("a", 100);
  store.foreign.exec("BEGIN IMMEDIATE");
  const auto running = store.start_append("a", 0, 100);
  CHECK(store.wait((*store).get_upload("a"))->offset == 0);
  CHECK_FALSE(running->is_done());
  store.foreign.exec("COMMIT");
  CHECK(running->get() == committed(100, true));
}

TEST_CASE_METHOD(SqliteFolder, "a database that is replaced while it is open is not written") {
  const bool removed = GENERATE(false, true);
  CAPTURE(removed);
  TemporaryFolder aside;
  const std::string other = make_database(aside.path(), "other");
  {
    SqliteStore store(folder.path());
    store.wait(store->create_upload("a", 10'000, Metadata()));
    CHECK(store.wait(append_test_bytes(*store, "a", 1, 0, 5000)) == committed(5000));
    fs::rename(folder / "uploads.db", folder / "moved.db");
    if (!removed) write_contents(folder / "uploads.db", other);
    const std::error_code error =
        error_of(store.executor, append_test_bytes(*store, "a", 1, 5000, 100));
    CHECK(error == Errc::corrupt);
    CHECK(error_of(store.executor, store->create_upload("b", 10, Metadata())) == Errc::corrupt);
    CHECK(error_of(store.executor, store->get_upload("a")) == Errc::corrupt);
    CHECK(error_of(store.executor, store->delete_upload("a")) == Errc::corrupt);
    CHECK(error_of(store.executor, store->sweep()) == Errc::corrupt);
    CHECK(error_of(store.executor, store->backup(folder / "backup.db")) == Errc::corrupt);
    CHECK_FALSE(fs::exists(folder / "backup.db"));
  }
  CHECK(fs::exists(folder / "uploads" / "a"));
  CHECK_FALSE(fs::exists(folder / "uploads" / "b"));
  if (removed) {
    CHECK_FALSE(fs::exists(folder / "uploads.db"));
  } else {
    CHECK(contents(folder / "uploads.db") == other);
  }
  fs::remove(folder / "uploads.db");
  fs::rename(folder / "moved.db", folder / "uploads.db");
  ProtocolStore store(folder.path());
  store.check_and_finish("a", 5000, 10'000);
}

TEST_CASE_METHOD(ProtocolFixture, "two storages on one database and folder") {
  const auto second = sync_wait(engine, SQLiteStorage::open(engine, options()));
  create("a", std::nullopt);
  for (std::uint64_t offset = 0; offset < 2000; offset += 200) {
    CHECK(append("a", offset, 100) == committed(offset + 100));
    CHECK(wait(append_test_bytes(*second, "a", 1, offset + 100, 100)) == committed(offset + 200));
  }
  check_upload("a", 2000);

  // Both at once, each its own; then each the same.
  std::vector<Task<bool>> tasks;
  for (int i = 0; i < 10; ++i) {
    const UploadId id("u" + std::to_string(i));
    create(id, 20'000);
    tasks.push_back(append_all(i % 2 == 0 ? **this : *second, id, 20'000, 1000));
  }
  const std::vector<bool> all_done = wait(when_all(std::move(tasks)));
  CHECK(std::count(all_done.begin(), all_done.end(), true) == 10);
  for (int i = 0; i < 10; ++i) check_upload("u" + std::to_string(i), 20'000);

  std::vector<Task<AppendResult>> rivals;
  for (int i = 0; i < 10; ++i) {
    rivals.push_back(append_test_bytes(i % 2 == 0 ? **this : *second, "a", 1, 2000, 100));
  }
  const std::vector<AppendResult> results = wait(when_all(std::move(rivals)));
  CHECK(std::count(results.begin(), results.end(), committed(2100)) == 1);
  check_upload("a", 2100);

  // One that closes takes no lock from the other.
  const std::unique_ptr<UploadWriter> writer = wait((**this).open_writer("a"));
  sync_wait(second->executor(), second->close(60s));
  CHECK(wait(write_bytes(**this, *writer, 100)));
  CHECK(is_locked(path("a")));
  CHECK(wait(writer->close()) == committed(2200));
  check_upload("a", 2200);
}

TEST_CASE_METHOD(SqliteFolder, "every commit is in the log, synced, before it is answered") {
  LogVfs vfs;
  ProtocolStore store(folder.path(), {.sqlite_vfs = LogVfs::k_name});
  CHECK(store.foreign.ask("PRAGMA journal_mode") == "wal");
  vfs.on_call(nullptr);
  store.create("a", 10'000);
  CHECK(vfs.calls().back() == SqliteCall{SqliteCall::Kind::sync, true});
  for (std::uint64_t i = 0; i < 20; ++i) {
    vfs.on_call(nullptr);
    CHECK(store.append("a", 100 * i, 100) == committed(100 * (i + 1)));
    const std::vector<SqliteCall> calls = vfs.calls();
    REQUIRE_FALSE(calls.empty());
    CHECK(calls.front() == SqliteCall{SqliteCall::Kind::write, true});
    CHECK(calls.back() == SqliteCall{SqliteCall::Kind::sync, true});
  }
  vfs.on_call(nullptr);
  store.wait((*store).delete_upload("a"));
  CHECK(vfs.calls().back() == SqliteCall{SqliteCall::Kind::sync, true});
}

TEST_CASE_METHOD(ProtocolFixture, "metadata that nobody can read blocks no append") {
  const std::string text = GENERATE("not json", "[1]", "{\"a\": {}}", "{\"a\"");
  create("a", 10'000);
  foreign.exec("UPDATE uploads SET metadata = '" + text + "'");
  const Upload upload = wait((**this).get_upload("a")).value();
  CHECK_FALSE(upload.metadata_error.empty());
  CHECK(upload.metadata.empty());
  CHECK(append("a", 0, 5000) == committed(5000));
  CHECK(foreign.ask("metadata", "a") == text);
  CHECK(wait((**this).list_uploads(std::nullopt, 10)).uploads.size() == 1);
  wait((**this).set_metadata("a", Metadata{{"k", "v"}}));
  CHECK(wait((**this).get_upload("a"))->metadata_error.empty());
  check_and_finish("a", 5000, 10'000);
}

TEST_CASE_METHOD(ProtocolFixture, "`completed` is derived, never believed") {
  create("a", 10'000);
  foreign.exec("UPDATE uploads SET completed = 1");
  CHECK_FALSE(wait((**this).get_upload("a"))->completed);
  check_and_finish("a", 0, 10'000);
  CHECK(foreign.ask("completed", "a") == "1");
  foreign.exec("UPDATE uploads SET completed = 0");
  CHECK(wait((**this).get_upload("a"))->completed);
  CHECK(append_error("a", 10'000, 1) == Errc::already_complete);
  wait((**this).set_expiry("a", environment.system_now() - 1h));
  CHECK(wait((**this).cleanup_expired_uploads()) == 0);
  check_upload("a", 10'000);
}

TEST_CASE_METHOD(ProtocolFixture, "a row that contradicts itself is corrupt and stays") {
  create_at("a", 100, 10'000);
  create("good", 10);
  foreign.exec("UPDATE uploads SET upload_length = 50 WHERE upload_id = 'a'");
  CHECK(append_error("a", 100, 10) == Errc::corrupt);
  CHECK(error_of((**this).get_upload("a")) == Errc::corrupt);
  CHECK(error_of((**this).open_writer("a")) == Errc::corrupt);
  CHECK(foreign.offset("a") == 100);
  CHECK(fs::file_size(path("a")) == 100);
  CHECK(wait((**this).sweep({.min_age = 0s})).corrupt == std::vector<UploadId>{"a"});
  check_and_finish("good", 0, 10);
  wait((**this).delete_upload("a"));
  CHECK_FALSE(foreign.has_row("a"));
}

TEST_CASE_METHOD(ProtocolFixture,
                 "rows of other programs with names that are no ids are left alone") {
  create("a", 10);
  const std::string long_name(65, 'x');
  for (const std::string& name : {std::string("../x"), std::string("a.b"), long_name}) {
    foreign.exec("INSERT INTO uploads (upload_id, upload_length, expires_at) VALUES ('" + name +
                 "', 10, '2000-01-01T00:00:00+00:00')");
  }
  const UploadPage page = wait((**this).list_uploads(std::nullopt, 10));
  CHECK(page.uploads.size() == 1);
  CHECK_FALSE(page.next.has_value());
  CHECK(wait((**this).cleanup_expired_uploads()) == 0);
  wait((**this).sweep({.min_age = 0s}));
  CHECK(foreign.ask_number("SELECT count(*) FROM uploads") == 4);
}

TEST_CASE_METHOD(ProtocolFixture, "a storage that is closed takes no new work") {
  create("a", 10);
  std::unique_ptr<UploadWriter> writer = wait((**this).open_writer("a"));
  writer.reset();
  SQLiteStorage& storage = **this;
  wait(storage.close(60s));
  const Bytes bytes(1);
  CHECK(append_error("a", 0, 1) == Errc::shutting_down);
  CHECK(error_of(storage.open_writer("a")) == Errc::shutting_down);
  CHECK(error_of(storage.create_upload("b", 1, Metadata())) == Errc::shutting_down);
  CHECK(error_of(storage.get_upload("a")) == Errc::shutting_down);
  CHECK(error_of(storage.read_file("a", 1)) == Errc::shutting_down);
  CHECK(error_of(storage.delete_upload("a")) == Errc::shutting_down);
  CHECK(error_of(storage.write_chunk("a", 0, bytes)) == Errc::shutting_down);
  CHECK(error_of(storage.cleanup_expired_uploads()) == Errc::shutting_down);
  CHECK(error_of(storage.sweep()) == Errc::shutting_down);
  CHECK(error_of(storage.backup(folder / "backup.db")) == Errc::shutting_down);
  CHECK(foreign.offset("a") == 0);
}
