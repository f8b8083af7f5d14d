// SQLiteStorage's sweep of what crashes leave behind, and its backup of the rows.

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <fcntl.h>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <sys/stat.h>
#include <vector>

#include <tidemark/engine/when_all.hpp>
#include <tidemark/storage/detail/schema.hpp>

#include "sqlite_protocol.hpp"

using namespace tidemark;
using namespace tidemark::test;
using namespace std::chrono_literals;
namespace fs = std::filesystem;
using Kind = Operation::Kind;
using Ids = std::vector<UploadId>;

namespace {

struct SweepFixture : ProtocolFixture {
  SweepReport sweep(SweepOptions with = {}) {
    SweepReport report = wait((**this).sweep(with));
    for (Ids* ids : {&report.orphan_files, &report.orphan_rows, &report.corrupt}) {
      std::ranges::sort(*ids);
    }
    return report;
  }
  /// A file in the upload folder that was changed so long before now.
  void make_file(UploadId id, std::chrono::seconds age) {
    write_contents(path(id), "orphan");
    const auto seconds = environment.system_now().time_since_epoch() - age;
    const timespec at{std::chrono::duration_cast<std::chrono::seconds>(seconds).count(), 0};
    const timespec times[] = {at, at};
    REQUIRE(::utimensat(AT_FDCWD, path(id).c_str(), times, 0) == 0);
  }
  /// A row that was made so long before now, without a file.
  void make_row(UploadId id, std::chrono::seconds age) {
    const auto seconds =
        std::chrono::floor<std::chrono::seconds>(environment.system_now().time_since_epoch() - age);
    foreign.exec("INSERT INTO uploads (upload_id, upload_length, created_at) VALUES ('" +
                 std::string(id.view()) + "', 10, datetime(" + std::to_string(seconds.count()) +
                 ", 'unixepoch'))");
  }
  bool has_file(UploadId id) const { return fs::exists(path(id)); }
};

/// Rows by id: length, offset, metadata and all.
using Rows = std::map<std::string, std::string>;

Rows read_rows(const fs::path& path) {
  detail::Database db(path.string(), SQLITE_OPEN_READONLY);
  detail::Statement query(db, "SELECT * FROM uploads");
  const int columns = sqlite3_column_count(sqlite3_next_stmt(db.handle(), nullptr));
  Rows rows;
  while (query.step()) {
    std::string row;
    for (int i = 1; i < columns; ++i) {
      row += query.is_null(i) ? std::string("-") : std::string(query.text(i));
      row += '|';
    }
    rows.emplace(query.text(0), std::move(row));
  }
  return rows;
}

Task<void> append_until(Storage& storage, UploadId id, const bool& done, std::uint64_t& offset) {
  while (!done) {
    const AppendResult result = co_await append_test_bytes(storage, id, 1, offset, 10);
    offset = result.offset;
  }
}

Task<void> back_up(Storage& storage, fs::path path, bool& done, std::uint64_t& offset) {
  while (offset == 0) co_await schedule();
  co_await storage.backup(std::move(path));
  done = true;
}

}  // namespace

TEST_CASE_METHOD(SweepFixture, "nothing is as old as the greatest age, and nothing is too young") {
  make_file("file", 24h);
  CHECK(sweep({.min_age = std::chrono::seconds::max()}).orphan_files.empty());
  CHECK(has_file("file"));
  CHECK(sweep({.min_age = std::chrono::seconds::min()}).orphan_files == Ids{"file"});
}

TEST_CASE_METHOD(SweepFixture, "a sweep removes files without rows, and rows without files") {
  create_at("good", 5, 10);
  create("empty", 10);
  create("complete", 0);
  make_file("orphan", 2h);
  make_file("young", 30min);
  make_row("row", 2h);
  make_row("young-row", 30min);
  const auto check_rest = [&] {
    CHECK(has_file("young"));
    CHECK(foreign.has_row("young-row"));
    check_upload("good", 5);
    check_upload("empty", 0);
    check_upload("complete", 0);
  };
  const SweepReport dry = sweep({.dry_run = true});
  CHECK(dry.orphan_files == Ids{"orphan"});
  CHECK(dry.orphan_rows == Ids{"row"});
  CHECK(dry.corrupt.empty());
  CHECK(has_file("orphan"));
  CHECK(foreign.has_row("row"));
  check_rest();

  const SweepReport real = sweep();
  CHECK(real.orphan_files == Ids{"orphan"});
  CHECK(real.orphan_rows == Ids{"row"});
  CHECK(real.corrupt.empty());
  CHECK_FALSE(has_file("orphan"));
  CHECK_FALSE(foreign.has_row("row"));
  check_rest();

  environment.advance(1h);
  const SweepReport later = sweep();
  CHECK(later.orphan_files == Ids{"young"});
  CHECK(later.orphan_rows == Ids{"young-row"});
  check_nothing_left();
}

TEST_CASE_METHOD(SweepFixture, "a sweep keeps what is corrupt, and says so") {
  create_at("gone", 5, 10);
  create_at("short", 5, 10);
  create_at("finished", 10, 10);
  create_at("good", 5, 10);
  fs::remove(path("gone"));
  fs::remove(path("finished"));
  fs::resize_file(path("short"), 4);
  const SweepReport report = sweep({.min_age = 0s});
  CHECK(report.orphan_files.empty());
  CHECK(report.orphan_rows.empty());
  CHECK(report.corrupt == Ids{"finished", "gone", "short"});
  CHECK(foreign.ask_number("SELECT count(*) FROM uploads") == 4);
  CHECK(fs::file_size(path("short")) == 4);
  check_and_finish("good", 5, 10);
}

TEST_CASE_METHOD(SweepFixture, "a sweep leaves alone what somebody holds, and what is no upload") {
  make_file("locked", 2h);
  make_file("link-target", 2h);
  write_contents(options().upload_dir / "not.an.id", "x");
  fs::create_directory(path("folder"));
  fs::rename(path("link-target"), folder / "target");
  fs::create_symlink(folder / "target", path("link"));
  PlainFile other(path("locked"));
  REQUIRE(other.try_lock());
  const SweepReport report = sweep({.min_age = 0s});
  CHECK(report.orphan_files.empty());
  CHECK(has_file("locked"));
  CHECK(fs::exists(options().upload_dir / "not.an.id"));
  CHECK(fs::is_directory(path("folder")));
  CHECK(fs::is_symlink(path("link")));
  CHECK(fs::exists(folder / "target"));
  other.unlock();
  CHECK(sweep({.min_age = 0s}).orphan_files == Ids{"locked"});
}

TEST_CASE_METHOD(SweepFixture, "a sweep looks again under the lock") {
  make_file("a", 2h);
  make_row("b", 2h);
  environment.on_submit([&, made = false](const Operation& operation, std::uint64_t) mutable {
    if (operation.kind == Kind::lock && name_of(operation) == "a" && !made) {
      made = true;
      foreign.exec("INSERT INTO uploads (upload_id, upload_length) VALUES ('a', 10)");
    }
    return Fault::none();
  });
  const SweepReport report = sweep();
  environment.on_submit(nullptr);
  CHECK(report.orphan_files.empty());
  CHECK(has_file("a"));
  CHECK(foreign.has_row("a"));
  CHECK(report.orphan_rows == Ids{"b"});
}

TEST_CASE_METHOD(SweepFixture, "a sweep of many pages misses nothing") {
  foreign.exec("BEGIN");
  for (int i = 0; i < 1000; ++i) {
    const UploadId id("u" + std::to_string(i));
    if (i % 4 == 0) {
      make_row(id, 2h);
    } else if (i % 4 == 1) {
      make_file(id, 2h);
    } else {
      make_row(id, 2h);
      make_file(id, 2h);
    }
  }
  foreign.exec("COMMIT");
  const SweepReport report = sweep();
  CHECK(report.orphan_rows.size() == 250);
  CHECK(report.orphan_files.size() == 250);
  CHECK(report.corrupt.empty());
  CHECK(foreign.ask_number("SELECT count(*) FROM uploads") == 500);
}

TEST_CASE_METHOD(SweepFixture, "a sweep does not run in another folder than the one opened") {
  const std::string kind = GENERATE("empty", "none", "link");
  CAPTURE(kind);
  create_at("a", 5, 10);
  create("b", 10);
  const fs::path aside = folder / "aside";
  fs::rename(options().upload_dir, aside);
  fs::create_directory(folder / "other");
  if (kind == "empty") fs::create_directory(options().upload_dir);
  if (kind == "link") fs::create_directory_symlink(folder / "other", options().upload_dir);
  environment.advance(2h);
  CHECK(error_of((**this).sweep()) == Errc::corrupt);
  CHECK(foreign.ask_number("SELECT count(*) FROM uploads") == 2);
  if (kind != "none") fs::remove(options().upload_dir);
  fs::rename(aside, options().upload_dir);
  const SweepReport report = sweep();
  CHECK(report.orphan_rows.empty());
  check_and_finish("a", 5, 10);
}

TEST_CASE_METHOD(SweepFixture, "what a create leaves at each step is swept, and the id is free") {
  // As after a crash: from one step on nothing is done, not even tidying up.
  std::uint64_t step = 1;
  for (bool reached = true; reached; ++step) {
    CAPTURE(step);
    environment.on_submit([=](const Operation& operation, std::uint64_t number) {
      const bool after = number >= step && operation.kind != Kind::close;
      return after ? Fault::answer(-EIO) : Fault::none();
    });
    const std::error_code error = error_of((**this).create_upload("a", 10, Metadata()));
    reached = environment.count() >= step;
    environment.on_submit(nullptr);
    if (error) {
      environment.advance(24h * 365 * 50);  // The files' times are the real ones.
      sweep();
      environment.advance(-24h * 365 * 50);
      CHECK_FALSE(has_file("a"));
      CHECK_FALSE(foreign.has_row("a"));
      create("a", 10);
    }
    check_upload("a", 0);
    wait((**this).delete_upload("a"));
  }
  CHECK(step > 4);
}

TEST_CASE_METHOD(SweepFixture, "a backup is a database of the same rows") {
  create_at("a", 5, 10, environment.system_now() + 1h);
  create("deferred", std::nullopt);
  create_at("finished", 10, 10);
  const Metadata none;
  wait((**this).concatenate("whole", {"finished"}, none));
  foreign.exec("ALTER TABLE uploads ADD COLUMN owner TEXT DEFAULT 'nobody'");
  foreign.exec("UPDATE uploads SET owner = 'me', metadata = 'not json' WHERE upload_id = 'a'");
  foreign.exec("CREATE TABLE extras AS SELECT 'kept' AS note");
  const fs::path to = folder / "backup.db";
  wait((**this).backup(to));
  CHECK(read_rows(to) == read_rows(options().db_path));
  detail::Database db(to.string(), SQLITE_OPEN_READWRITE);
  detail::check_schema(db);
  detail::Statement integrity(db, "PRAGMA integrity_check");
  REQUIRE(integrity.step());
  CHECK(integrity.text(0) == "ok");
  for (const char* suffix : {"-journal", "-wal", "-shm"}) {
    CHECK_FALSE(fs::exists(to.string() + suffix));
  }
  CHECK(error_of((**this).backup(to)) == Errc::already_exists);
  check_upload("a", 5);
}

TEST_CASE_METHOD(SweepFixture, "a backup goes on while appends do") {
  foreign.exec("BEGIN");
  for (int i = 0; i < 20'000; ++i) make_row("row-" + std::to_string(i), 2h);
  foreign.exec("COMMIT");
  create("a", std::nullopt);
  bool done = false;
  std::uint64_t offset = 0;
  const fs::path to = folder / "backup.db";
  wait(when_all(append_until(**this, "a", done, offset), back_up(**this, to, done, offset)));
  const Rows rows = read_rows(to);
  CHECK(rows.size() == 20'001);
  detail::Database db(to.string(), SQLITE_OPEN_READONLY);
  detail::Statement kept(db, "SELECT offset FROM uploads WHERE upload_id = 'a'");
  REQUIRE(kept.step());
  CHECK(kept.int64(0) > 0);
  CHECK(static_cast<std::uint64_t>(kept.int64(0)) <= offset);
  check_upload("a", offset);
}

TEST_CASE_METHOD(SweepFixture, "whichever step of a backup fails, nothing is left of it") {
  create_at("a", 5, 10);
  const fs::path to = folder / "backup.db";
  std::uint64_t step = 1;
  for (bool reached = true; reached; ++step) {
    CAPTURE(step);
    environment.on_submit([=](const Operation& operation, std::uint64_t number) {
      // To ask an open file for its size does not fail.
      const bool meant = number == step && operation.kind != Kind::stat;
      return meant ? at_step(step, Fault::answer(-EIO))(operation, number) : Fault::none();
    });
    const std::error_code error = error_of((**this).backup(to));
    reached = environment.count() >= step;
    environment.on_submit(nullptr);
    CHECK((!error || error == Errc::io_error));
    if (!reached) CHECK_FALSE(error);
    CHECK(fs::exists(to) == !error);
    if (!error) CHECK(read_rows(to) == read_rows(options().db_path));
    fs::remove(to);
  }
  CHECK(step > 3);
}
