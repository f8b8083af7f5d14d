// A COMMIT that failed: whether it happened is for the disk to say, and what follows does not
// depend on it.

#include <atomic>
#include <cstddef>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>

#include "log_vfs.hpp"
#include "sqlite_protocol.hpp"

using namespace tidemark;
using namespace tidemark::test;
using namespace std::chrono_literals;
namespace fs = std::filesystem;

namespace {

constexpr SqliteCall k_commit{SqliteCall::Kind::sync, true};
constexpr int k_always = 1'000'000;

/// Two storages, the first of which cannot sync its log.
struct FailedCommit : SqliteFolder {
  FailedCommit() {
    store.create("before", 10);  // So that its log is synced for commits alone.
    vfs.on_call([this](const SqliteCall& call) {
      return call == k_commit && failures-- > 0 ? SQLITE_IOERR_FSYNC : SQLITE_OK;
    });
  }

  /// The length of an upload after a power cut that leaves all that was written; nothing without
  /// a row.
  std::optional<std::string> length_after_power_cut(std::string_view id) const {
    const TemporaryFolder left;
    for (const char* name : {"uploads.db", "uploads.db-wal"}) {
      fs::copy_file(folder / name, left / name);
    }
    return ForeignProgram(left.path()).ask("upload_length", id);
  }

  LogVfs vfs;
  std::atomic<int> failures{0};
  ProtocolStore store{folder.path(), {.sqlite_vfs = LogVfs::k_name}};
  ProtocolStore other{folder.path()};
};

}  // namespace

TEST_CASE_METHOD(SqliteFolder, "a commit that failed keeps nothing, and the next one is true") {
  const auto [kind, code] = GENERATE(table<SqliteCall::Kind, int>({
      {SqliteCall::Kind::write, SQLITE_IOERR_WRITE},
      {SqliteCall::Kind::write, SQLITE_FULL},
      {SqliteCall::Kind::sync, SQLITE_IOERR_FSYNC},
  }));
  CAPTURE(code);
  const Errc expected = code == SQLITE_FULL ? Errc::no_space : Errc::io_error;
  LogVfs vfs;
  ProtocolStore store(folder.path(), {.sqlite_vfs = LogVfs::k_name});
  store.create_at("a", 5000, 10'000);
  vfs.on_call([failing = kind, answer = code](const SqliteCall& call) {
    return call.is_log && call.kind == failing ? answer : SQLITE_OK;
  });
  CHECK(store.append_error("a", 5000, 100) == expected);
  CHECK(store.append_error("a", 5000, 100) == expected);
  CHECK(store.error_of((*store).create_upload("b", 10, Metadata())) == expected);
  CHECK_FALSE(is_locked(store.path("a")));
  vfs.on_call(nullptr);
  // Whether the failed commit happened is for the disk to say; the bytes are there in any case.
  const std::uint64_t offset = store.wait((*store).get_upload("a"))->offset;
  CHECK((offset == 5000 || offset == 5100));
  store.check_and_finish("a", offset, 10'000);
  store.close();
  store.open();
  store.check_upload("a", 10'000);
}

TEST_CASE_METHOD(SqliteFolder,
                 "A3: a COMMIT that may come back is settled before its bytes are written") {
  LogVfs vfs;
  ProtocolStore store(folder.path(), {.sqlite_vfs = LogVfs::k_name});
  store.create_at("a", 5000, 10'000);
  std::optional<std::size_t> commits_before;
  store.environment.on_submit([&](const Operation& operation, std::uint64_t) {
    const bool writes = operation.kind == Operation::Kind::write && name_of(operation) == "a";
    if (writes && !commits_before) commits_before = vfs.count(k_commit);
    return Fault::none();
  });
  const auto append_one = [&](std::uint64_t offset) {
    commits_before.reset();
    vfs.on_call(nullptr);
    REQUIRE(store.append("a", offset, 1) == committed(offset + 1));
    return commits_before.value();
  };
  CHECK(append_one(5000) == 0);

  vfs.on_call(
      [=](const SqliteCall& call) { return call == k_commit ? SQLITE_IOERR_FSYNC : SQLITE_OK; });
  CHECK(store.append_error("a", 5001, 1) == Errc::io_error);
  // A power cut may bring that commit about: nobody writes other bytes below its offset.
  commits_before.reset();
  CHECK(store.append_error("a", 5001, 1) == Errc::io_error);
  CHECK_FALSE(commits_before);
  CHECK(append_one(5001) > 0);
  CHECK(append_one(5002) == 0);

  // Another process that wrote beyond the offset may have died in its own.
  store.foreign.append("a", 1, 5003, 100);
  CHECK(append_one(5103) == 0);
  write_contents(store.path("a"), contents(store.path("a")) + "more");
  CHECK(append_one(5104) > 0);
}

TEST_CASE_METHOD(SqliteFolder, "a delete on a full disk waits for another process' transaction") {
  LogVfs vfs;
  std::unique_ptr<ForeignProgram> other;
  vfs.before_delete = [&](std::string_view path) {
    if (other && path.ends_with("-reserve")) other->exec("BEGIN IMMEDIATE");
  };
  ProtocolStore store(folder.path(), {.sqlite_vfs = LogVfs::k_name});
  store.create_at("a", 100, 200);
  other = std::make_unique<ForeignProgram>(folder.path());
  std::atomic<int> failures{1};
  vfs.on_call([&](const SqliteCall& call) {
    const bool writes_log = call.is_log && call.kind == SqliteCall::Kind::write;
    return writes_log && failures-- > 0 ? SQLITE_FULL : SQLITE_OK;
  });
  const int refused = vfs.refused_locks;
  const auto deletion = store.start((*store).delete_upload("a"));
  vfs.refused_locks.wait(refused);
  other->exec("ROLLBACK");
  CHECK_FALSE(deletion->error());
  CHECK_FALSE(store.foreign.has_row("a"));
}

TEST_CASE_METHOD(FailedCommit,
                 "A3: a length whose COMMIT may come back is settled before more bytes") {
  // The file is as the other process made it stable: nothing about it tells of the COMMIT.
  other.create_at("a", 100, std::nullopt);
  failures = k_always;
  CHECK(store.error_of((*store).set_length("a", 100)) == Errc::io_error);
  CHECK(length_after_power_cut("a") == "100");
  std::optional<std::string> length_before_bytes;
  other.environment.on_submit([&](const Operation& operation, std::uint64_t) {
    const bool writes = operation.kind == Operation::Kind::write && name_of(operation) == "a";
    if (writes && !length_before_bytes) length_before_bytes = length_after_power_cut("a");
    return Fault::none();
  });
  CHECK(other.append("a", 100, 50) == committed(150));
  CHECK(length_before_bytes == "-1");
  other.environment.on_submit(nullptr);
  failures = 0;
  other.check_upload("a", 150);
}

TEST_CASE_METHOD(FailedCommit, "what becomes of a create whose COMMIT failed stays so") {
  const auto create_and_fail = [&](int times) {
    failures = times;
    CHECK(store.error_of((*store).create_upload("a", 100, Metadata())) == Errc::io_error);
  };
  SECTION("by itself it is undone") {
    create_and_fail(1);
    CHECK_FALSE(fs::exists(store.path("a")));
    CHECK_FALSE(length_after_power_cut("a"));
  }
  SECTION("while nobody commits it may come back") {
    create_and_fail(k_always);
    CHECK(fs::exists(store.path("a")));
    CHECK_FALSE(other.wait((*other).get_upload("a")));
    CHECK(length_after_power_cut("a") == "100");
  }
  SECTION("deleted") {
    create_and_fail(k_always);
    other.wait((*other).delete_upload("a"));
    CHECK_FALSE(fs::exists(store.path("a")));
    CHECK_FALSE(length_after_power_cut("a"));
  }
  SECTION("swept") {
    create_and_fail(k_always);
    fs::last_write_time(store.path("a"), fs::file_time_type::min());
    CHECK(other.wait((*other).sweep({})).orphan_files == std::vector<UploadId>{"a"});
    CHECK_FALSE(length_after_power_cut("a"));
  }
  SECTION("made anew") {
    create_and_fail(k_always);
    other.create("a", 200);
    CHECK(length_after_power_cut("a") == "200");
    other.check_and_finish("a", 0, 200);
  }
  failures = 0;
}
