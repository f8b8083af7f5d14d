// The defaults of Storage over a backend that fails, hangs, or is changed behind their back.

#include <algorithm>

#include <sqlite3.h>

#include <tidemark/engine/sync_wait.hpp>
#include <tidemark/storage/detail/database.hpp>

#include "conformance.hpp"
#include "driver_fixture.hpp"
#include "memory_storage.hpp"
#include "temporary_folder.hpp"

using namespace tidemark;
using namespace tidemark::test;
using namespace std::chrono_literals;

namespace {

using Writer = std::unique_ptr<UploadWriter>;

struct Fixture {
  TemporaryFolder folder;
  TestClock clock;
  Engine engine{options()};
  MemoryStorage storage{engine.executor()};
  World world{engine, clock, storage, folder.path()};

  EngineOptions options() {
    EngineOptions options = engine_options();
    options.environment = &clock;
    return options;
  }
  ~Fixture() { sync_wait(storage.executor(), storage.close(60s)); }

  /// From now on `operation` throws `error`, `times` times.
  void fail(std::string operation, Errc error, int times = 1) {
    storage.before = [=](std::string_view present) mutable {
      if (present == operation && times-- > 0) throw StorageError(error, present, "", "on purpose");
    };
  }
  void run(Task<void> (*test)(Fixture&)) { sync_wait(storage.executor(), test(*this)); }
  Executor& executor() const { return storage.executor(); }
};

Task<bool> write_next(UploadWriter& writer, std::size_t count) {
  const Bytes bytes = test_bytes(1, writer.offset(), count);
  co_return co_await writer.write(bytes);
}

Task<void> failed_appends(Fixture& fixture) {
  World& world = fixture.world;
  co_await create(world, "a", 10);
  const Bytes bytes = test_bytes(1, 0, 10);
  for (const char* operation : {"get", "write", "sync", "update"}) {
    for (const Errc code : {Errc::io_error, Errc::no_space, Errc::lock_timeout, Errc::busy}) {
      fixture.fail(operation, code);
      const std::error_code error = co_await error_of(world.storage.append("a", 0, bytes));
      CHECK(error == code);
      co_await check_content(world, "a", 1, 0);
    }
  }
  const AppendResult result = co_await world.storage.append("a", 0, bytes);
  CHECK(result == AppendResult{AppendStatus::committed, 10, true});
}

/// A failure ends the writer, keeps what was committed and lets the next one in.
Task<void> failed_writers(Fixture& fixture) {
  World& world = fixture.world;
  co_await create(world, "a", 100);
  std::uint64_t offset = 0;
  for (const char* operation : {"write", "sync", "update"}) {
    Writer writer = co_await world.storage.open_writer("a", {.offset = offset});
    bool taken = co_await write_next(*writer, 5);
    CHECK(taken);
    AppendResult result = co_await writer->commit();
    offset += 5;
    CHECK(result == AppendResult{AppendStatus::committed, offset, false});
    fixture.fail(operation, Errc::io_error);
    std::error_code error = co_await error_of(write_next(*writer, 5));
    if (!error) error = co_await error_of(writer->commit());
    CHECK(error == Errc::io_error);
    taken = co_await write_next(*writer, 5);
    CHECK_FALSE(taken);
    error = co_await error_of(writer->commit());
    CHECK(error == Errc::io_error);
    error = co_await error_of(writer->close());
    CHECK(error == Errc::io_error);
    co_await check_content(world, "a", 1, offset);
  }
  const Bytes bytes = test_bytes(1, offset, 5);
  const AppendResult result = co_await world.storage.append("a", offset, bytes);
  CHECK(result == AppendResult{AppendStatus::committed, offset + 5, false});
}

Task<void> failed_endings(Fixture& fixture) {
  World& world = fixture.world;
  co_await create(world, "a", 100);
  Writer writer = co_await world.storage.open_writer("a");
  bool taken = co_await write_next(*writer, 5);
  CHECK(taken);
  fixture.fail("sync", Errc::io_error);
  writer.reset();
  writer = co_await world.storage.open_writer("a");
  CHECK(writer->offset() == 0);

  taken = co_await write_next(*writer, 5);
  CHECK(taken);
  fixture.fail("update", Errc::io_error);
  const Writer newer = co_await world.storage.open_writer("a", {.take_over = true});
  CHECK(newer->offset() == 0);
  const std::error_code error = co_await error_of(writer->close());
  CHECK(error == Errc::io_error);
}

/// Another object, or program, moves the offset or deletes the upload under the writer's hands.
Task<void> changed_underneath(Fixture& fixture) {
  World& world = fixture.world;
  co_await create(world, "a", 100);
  Writer writer = co_await world.storage.open_writer("a");
  bool taken = co_await write_next(*writer, 10);
  CHECK(taken);
  co_await world.storage.update_offset("a", 7);
  AppendResult result = co_await writer->commit();
  CHECK(result == AppendResult{AppendStatus::offset_conflict, 7, false});
  taken = co_await write_next(*writer, 1);
  CHECK_FALSE(taken);
  result = co_await writer->close();
  CHECK(result == AppendResult{AppendStatus::offset_conflict, 7, false});

  writer = co_await world.storage.open_writer("a");
  taken = co_await write_next(*writer, 10);
  CHECK(taken);
  co_await world.storage.delete_upload("a");
  const std::error_code error = co_await error_of(writer->close());
  CHECK(error == Errc::not_found);
}

Task<void> backward_moves(Fixture& fixture) {
  Storage& storage = fixture.storage;
  co_await create(fixture.world, "a", 10);
  std::error_code error = co_await error_of(storage.update_offset_atomic("a", 5, 4));
  CHECK(error == Errc::invalid_argument);
  error = co_await error_of(storage.update_offset_atomic("a", 5, Storage::k_max_length + 1));
  CHECK(error == Errc::invalid_argument);
}

/// What cannot be made anew is put back as it was.
Task<void> failed_changes(Fixture& fixture) {
  World& world = fixture.world;
  const Metadata metadata{{"a", "1"}};
  co_await world.storage.create_upload("a", 10, metadata, world.clock.system_now() + 1h);
  const Bytes bytes = test_bytes(1, 0, 4);
  co_await world.storage.append("a", 0, bytes);
  const Upload before = co_await look_up(world, "a");
  for (const char* operation : {"read", "delete", "create", "write", "sync", "update"}) {
    fixture.fail(operation, Errc::no_space);
    std::error_code error = co_await error_of(world.storage.set_expiry("a", std::nullopt));
    CHECK(error == Errc::no_space);
    fixture.fail(operation, Errc::no_space);
    Metadata other{{"b", "2"}};
    error = co_await error_of(world.storage.set_metadata("a", other));
    CHECK(error == Errc::no_space);
    const Upload after = co_await look_up(world, "a");
    CHECK(after.metadata == before.metadata);
    CHECK(after.expires_at == before.expires_at);
    co_await check_content(world, "a", 1, 4);
  }
}

Task<void> failed_joins(Fixture& fixture) {
  World& world = fixture.world;
  co_await create_finished(world, "part", 1, 10);
  for (const char* operation : {"create", "read", "write", "sync", "update"}) {
    fixture.fail(operation, Errc::io_error);
    std::vector<UploadId> parts{"part"};
    Metadata metadata;
    const std::error_code error = co_await error_of(
        world.storage.concatenate("whole", std::move(parts), std::move(metadata)));
    CHECK(error == Errc::io_error);
    const std::optional<Upload> none = co_await world.storage.get_upload("whole");
    CHECK_FALSE(none.has_value());
  }
}

Task<void> failed_releases(Fixture& fixture) {
  World& world = fixture.world;
  co_await create_finished(world, "a", 1, 10);
  const std::filesystem::path path = world.folder / "a";
  fixture.fail("read", Errc::io_error);
  std::error_code error = co_await error_of(world.storage.release_to("a", path));
  CHECK(error == Errc::io_error);
  CHECK(std::filesystem::is_empty(world.folder));
  fixture.fail("delete", Errc::io_error);
  error = co_await error_of(world.storage.release_to("a", path));
  CHECK(error == Errc::io_error);
  CHECK(std::filesystem::file_size(path) == 10);
  co_await check_content(world, "a", 1, 10);
}

Task<void> failed_backups(Fixture& fixture) {
  co_await create(fixture.world, "a", 10);
  fixture.fail("list", Errc::io_error);
  const std::filesystem::path path = fixture.world.folder / "backup.db";
  const std::error_code error = co_await error_of(fixture.storage.backup(path));
  CHECK(error == Errc::io_error);
  CHECK(std::filesystem::is_empty(fixture.world.folder));
  co_await fixture.storage.backup(path);
}

Task<void> large_backups(Fixture& fixture) {
  constexpr int k_uploads = 2500;
  for (int i = 0; i < k_uploads; ++i) {
    co_await create(fixture.world, "u" + std::to_string(i), static_cast<std::uint64_t>(i));
  }
  const std::filesystem::path path = fixture.world.folder / "backup.db";
  co_await fixture.storage.backup(path);
  const detail::Database db(path.string(), SQLITE_OPEN_READONLY);
  detail::Statement query(db, "SELECT COUNT(*), SUM(upload_length) FROM uploads");
  REQUIRE(query.step());
  CHECK(query.int64(0) == k_uploads);
  CHECK(query.int64(1) == k_uploads * (k_uploads - 1) / 2);
}

Task<Writer> take_over_hanging(Fixture& fixture) {
  for (int turn = 0; turn < 10; ++turn) co_await schedule();
  co_return co_await fixture.storage.open_writer("a", {.take_over = true});
}

/// A write that would never end is ended by the take-over; the bytes before it are kept.
Task<void> hanging_writes(Fixture& fixture) {
  co_await create(fixture.world, "a", 10);
  Writer older = co_await fixture.storage.open_writer("a");
  bool taken = co_await write_next(*older, 3);
  CHECK(taken);
  fixture.storage.hangs_in = "write";
  auto results = co_await when_all(write_next(*older, 3), take_over_hanging(fixture));
  CHECK_FALSE(std::get<0>(results));
  const Writer newer = std::move(std::get<1>(results));
  CHECK(newer->offset() == 3);
  fixture.storage.hangs_in.clear();
  const AppendResult result = co_await older->close();
  CHECK(result == AppendResult{AppendStatus::taken_over, 3, false});
}

Task<void> append_after(Fixture& fixture, UploadId id, int turns) {
  for (int turn = 0; turn < turns; ++turn) co_await schedule();
  const Bytes bytes = test_bytes(1, 0, 6);
  co_await fixture.storage.append(id, 0, bytes);
}

Task<std::uint64_t> wait_after(Fixture& fixture, UploadId id, int turns) {
  for (int turn = 0; turn < turns; ++turn) co_await schedule();
  co_return co_await fixture.storage.wait_for_offset(id, 5);
}

/// Whenever the commit comes, it ends the wait: no pause does, since time stands still.
Task<void> moves_here(Fixture& fixture) {
  fixture.clock.halt();
  for (int turns = 0; turns < 30; ++turns) {
    const UploadId id("u" + std::to_string(turns));
    co_await create(fixture.world, id, 10);
    const auto results = co_await when_all(wait_after(fixture, id, 15 - turns),
                                           append_after(fixture, id, turns - 15));
    CHECK(std::get<0>(results) == 6);
  }
}

/// Another object's commits are found by asking, without a wake.
Task<void> moves_elsewhere(Fixture& fixture) {
  Storage& storage = fixture.storage;
  co_await create(fixture.world, "a", 10);
  const Bytes bytes = test_bytes(1, 0, 10);
  co_await storage.write_chunk("a", 0, bytes);
  const auto results =
      co_await when_all(storage.wait_for_offset("a", 5), storage.update_offset("a", 6));
  CHECK(std::get<0>(results) == 6);
}

}  // namespace

TEST_CASE_METHOD(Fixture, "a failed append commits nothing and can be done again") {
  run(failed_appends);
}
TEST_CASE_METHOD(Fixture, "a failure ends a writer and keeps what was committed") {
  run(failed_writers);
}
TEST_CASE_METHOD(Fixture, "an end that nobody waits for may fail") {
  run(failed_endings);
}
TEST_CASE_METHOD(Fixture, "a writer meets a change from elsewhere") {
  run(changed_underneath);
}
TEST_CASE_METHOD(Fixture, "an offset is not moved backward") {
  run(backward_moves);
}
TEST_CASE_METHOD(Fixture, "a failed change of facts is taken back") {
  run(failed_changes);
}
TEST_CASE_METHOD(Fixture, "a failed concatenation is taken back") {
  run(failed_joins);
}
TEST_CASE_METHOD(Fixture, "a failed release leaves the upload") {
  run(failed_releases);
}
TEST_CASE_METHOD(Fixture, "a failed backup leaves no file") {
  run(failed_backups);
}
TEST_CASE_METHOD(Fixture, "a backup takes many pages") {
  run(large_backups);
}
TEST_CASE_METHOD(Fixture, "a take-over ends a write that hangs") {
  run(hanging_writes);
}
TEST_CASE_METHOD(Fixture, "wait_for_offset is woken by commits here") {
  run(moves_here);
}
TEST_CASE_METHOD(Fixture, "wait_for_offset sees commits of others") {
  run(moves_elsewhere);
}

TEST_CASE_METHOD(Fixture, "close waits for the ends of destroyed writers, up to its grace") {
  sync_wait(storage.executor(), create(world, "a", 10));
  Writer writer = sync_wait(storage.executor(), storage.open_writer("a"));
  const bool taken = sync_wait(storage.executor(), write_next(*writer, 5));
  CHECK(taken);
  SECTION("long enough") {
    writer.reset();
    sync_wait(storage.executor(), storage.close(60s));
    sync_wait(storage.executor(), check_content(world, "a", 1, 5));
  }
  SECTION("too short") {
    storage.hangs_in = "sync";
    writer.reset();
    sync_wait(storage.executor(), storage.close(1ms));
    storage.hangs_in.clear();
    sync_wait(storage.executor(), check_content(world, "a", 1, 0));
  }
}

TEST_CASE_METHOD(Fixture, "an engine that ends drains the ends of writers") {
  sync_wait(storage.executor(), create(world, "a", 10));
  for (int i = 0; i < 20; ++i) sync_wait(storage.executor(), storage.open_writer("a")).reset();
  engine.close(60s);
}
