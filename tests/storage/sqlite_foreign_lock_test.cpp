// What another program holds while a SQLiteStorage wants it: the lock of an upload, or the
// database. A1 to A6 are the steps of an append.

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include <tidemark/engine/when_all.hpp>

#include "foreign_program.hpp"
#include "sanitizers.hpp"
#include "sqlite_process.hpp"

using namespace tidemark;
using namespace tidemark::test;
using namespace std::chrono_literals;
namespace fs = std::filesystem;
using Kind = Operation::Kind;

namespace {

constexpr std::uint64_t k_ours = 1;
constexpr std::uint64_t k_theirs = 2;
constexpr std::chrono::nanoseconds k_at_once = 1ms;

struct Held : SqliteFolder {
  fs::path path() const { return folder / "uploads" / "a"; }
  /// `a` with 100 bytes of the foreign program.
  Held() {
    REQUIRE(foreign.does("create a 1000"));
    REQUIRE(foreign.does("append a 0 2 100"));
  }

  ForeignProcess foreign{folder.path()};
};

/// An append at 100 that waits for the lock, which the foreign program has.
std::future<AppendResult> append_behind_lock(ForeignProcess& foreign, SqliteStore& store) {
  REQUIRE(foreign.does("lock a"));
  OperationEvent waits = waits_for_lock(store.environment);
  auto appending = in_background([&] { return append(store, "a", 100, k_ours, 500); });
  waits.wait();
  return appending;
}

/// The same, and what `meanwhile` changes under it.
template <class Meanwhile>
auto append_after(ForeignProcess& foreign, SqliteStore& store, Meanwhile meanwhile) {
  auto appending = append_behind_lock(foreign, store);
  meanwhile();
  CHECK(store.environment.count(Kind::write) == 0);
  CHECK(foreign.does("unlock a"));
  return appending;
}

std::error_code failure_of(std::future<AppendResult> result) {
  try {
    result.get();
  } catch (const StorageError& error) {
    return error.code();
  }
  return {};
}

/// Appends to one upload until `done`; gives how often.
Task<int> append_until(SQLiteStorage& storage, std::string id, const std::atomic<bool>& done) {
  Metadata none;
  co_await storage.create_upload(id, std::nullopt, std::move(none));
  int count = 0;
  const Bytes bytes = test_bytes(k_ours, 0, 100);
  for (std::uint64_t offset = 0; !done; ++count) {
    const AppendResult result = co_await storage.append(id, offset, bytes);
    offset += bytes.size();
    if (result != committed(offset)) throw std::runtime_error("an append met somebody");
  }
  co_return count;
}

/// The same with rows alone: no file is synced between two commits.
Task<int> set_expiry_until(SQLiteStorage& storage, std::string id, const std::atomic<bool>& done) {
  Metadata none;
  co_await storage.create_upload(id, std::nullopt, std::move(none));
  int count = 0;
  for (; !done; ++count) {
    co_await storage.set_expiry(id, SystemTime(std::chrono::seconds(4'000'000'000 + count)));
  }
  co_return count;
}

using Work = Task<int> (*)(SQLiteStorage&, std::string, const std::atomic<bool>&);

Task<int> all_until(SQLiteStorage& storage, int uploads, Work work, const std::atomic<bool>& done) {
  std::vector<Task<int>> tasks;
  for (int i = 0; i < uploads; ++i) {
    tasks.push_back(work(storage, "busy-" + std::to_string(i), done));
  }
  int sum = 0;
  const std::vector<int> counts = co_await when_all(std::move(tasks));
  for (const int count : counts) sum += count;
  co_return sum;
}

Task<AppendResult> open_and_write(SQLiteStorage& storage, WriterOptions options) {
  const auto writer = co_await storage.open_writer("a", options);
  const Bytes bytes = test_bytes(k_ours, writer->offset(), 50);
  co_await writer->write(bytes);
  co_return co_await writer->close();
}

Task<void> append_and_tell(SQLiteStorage& storage, std::promise<AppendResult>& result) {
  const Bytes bytes = test_bytes(k_ours, 100, 500);
  result.set_value(co_await storage.append("a", 100, bytes));
}

Task<void> take_over_and_write(SQLiteStorage& storage) {
  co_await open_and_write(storage, {.offset = 100, .take_over = true});
}

}  // namespace

TEST_CASE_METHOD(Held, "a row that changed before the lock was taken is read after it",
                 "[A1][A2]") {
  SqliteStore store(folder.path());
  SECTION("appended to") {
    auto appending =
        append_after(foreign, store, [&] { CHECK(foreign.does("append a 100 2 50")); });
    CHECK(appending.get() == conflict(150));
    CHECK(look_up(store, "a").offset == 150);
    CHECK(has_bytes(path(), k_theirs, 0, 150));
    CHECK(append(store, "a", 150, k_ours, 10) == committed(160));
  }
  SECTION("completed") {
    auto appending =
        append_after(foreign, store, [&] { CHECK(foreign.does("append a 100 2 900")); });
    CHECK(failure_of(std::move(appending)) == Errc::already_complete);
    CHECK(has_bytes(path(), k_theirs, 0, 1000));
    CHECK(fs::file_size(path()) == 1000);
  }
  SECTION("deleted") {
    auto appending = append_after(foreign, store, [&] { CHECK(foreign.does("delete a")); });
    CHECK(failure_of(std::move(appending)) == Errc::not_found);
    CHECK_FALSE(store.wait(store->get_upload("a")));
    CHECK_FALSE(fs::exists(path()));
  }
  SECTION("deleted and made anew") {
    auto appending = append_after(foreign, store, [&] {
      ForeignProcess other(folder.path());
      CHECK(foreign.does("delete a"));
      CHECK(other.does("create a 2000"));
      CHECK(other.does("append a 0 3 100"));
    });
    CHECK(appending.get() == committed(600));
    CHECK(has_bytes(path(), 3, 0, 100));
    CHECK(has_bytes(path(), k_ours, 100, 600));
  }
  SECTION("only looked at") {
    auto appending = append_after(foreign, store, [] {});
    CHECK(appending.get() == committed(600));
    CHECK(has_bytes(path(), k_ours, 100, 600));
  }
}

TEST_CASE_METHOD(Held, "what another process makes while it is looked for is found", "[A1][A2]") {
  SqliteStore store(folder.path());
  store.environment.on_submit([held = false](const Operation& operation, std::uint64_t) mutable {
    const bool looks = operation.kind == Kind::open && operation.path == std::string_view("b");
    return looks && !std::exchange(held, true) ? Fault::hold_result() : Fault::none();
  });
  const auto make_meanwhile = [&] {
    store.environment.wait_for_held();
    CHECK(foreign.does("create b 100"));
    CHECK(foreign.does("append b 0 2 50"));
    store.environment.release();
  };
  SECTION("to append") {
    auto appending = in_background([&] { return append(store, "b", 50, k_ours, 10); });
    make_meanwhile();
    CHECK(appending.get() == committed(60));
  }
  SECTION("to read") {
    auto reading = in_background([&] { return store.wait(store->read_file("b", 100)); });
    make_meanwhile();
    CHECK(reading.get() == test_bytes(k_theirs, 0, 50));
  }
}

TEST_CASE_METHOD(Held, "a writer begins where the upload stands once it is free", "[A1][A2]") {
  SqliteStore store(folder.path());
  REQUIRE(foreign.does("lock a"));
  const bool anywhere = GENERATE(true, false);
  OperationEvent waits = waits_for_lock(store.environment);
  const std::optional<std::uint64_t> at =
      anywhere ? std::nullopt : std::optional<std::uint64_t>(100);
  auto writing = in_background([&] { return store.wait(open_and_write(*store, {.offset = at})); });
  waits.wait();
  CHECK(foreign.does("append a 100 2 60"));
  CHECK(foreign.does("unlock a"));
  CHECK(writing.get() == (anywhere ? committed(210) : conflict(160)));
  CHECK(has_bytes(path(), k_theirs, 0, 160));
  if (anywhere) CHECK(has_bytes(path(), k_ours, 160, 210));
}

TEST_CASE_METHOD(Held, "a take-over ends a wait for another process", "[A1]") {
  SqliteStore store(folder.path());
  auto older = append_behind_lock(foreign, store);
  auto newer = in_background(
      [&] { return store.wait(open_and_write(*store, {.offset = 100, .take_over = true})); });
  CHECK(older.get() == AppendResult{AppendStatus::taken_over, 100, false});
  CHECK(foreign.does("unlock a"));
  CHECK(newer.get() == committed(150));
  CHECK(store->stats().take_overs == 1);
}

TEST_CASE_METHOD(Held, "a take-over ends all who wait before it for another process", "[A1]") {
  SqliteStore store(folder.path());
  auto first = append_behind_lock(foreign, store);
  std::promise<AppendResult> second;
  auto newer = in_background([&] {
    std::vector<Task<void>> tasks;  // In this order.
    tasks.push_back(append_and_tell(*store, second));
    tasks.push_back(take_over_and_write(*store));
    store.wait(when_all(std::move(tasks)));
  });
  CHECK(first.get() == AppendResult{AppendStatus::taken_over, 100, false});
  CHECK(second.get_future().get() == AppendResult{AppendStatus::taken_over, 100, false});
  CHECK(foreign.does("unlock a"));
  newer.get();
  CHECK(look_up(store, "a").offset == 150);
}

TEST_CASE_METHOD(Held, "a create that fails leaves what another process made meanwhile") {
  SqliteStore store(folder.path(), {.max_reserved_bytes = 2000});
  const fs::path path = folder / "uploads" / "b";
  PlainFile other(path, O_RDWR | O_CREAT);
  other.lock();
  OperationEvent waits = waits_for_lock(store.environment);
  auto creating = in_background(
      [&] { return error_of(store->executor(), store->create_upload("b", 600, Metadata())); });
  waits.wait();
  CHECK(foreign.does("create b 900"));
  other.unlock();
  CHECK(creating.get() == Errc::already_exists);
  CHECK(fs::exists(path));
  CHECK(look_up(store, "b").length == 900);
}

TEST_CASE_METHOD(Held, "nothing is written into an upload that another process made meanwhile") {
  SqliteStore store(folder.path());
  store.wait(store->create_upload("part", 0, Metadata()));
  const fs::path path = folder / "uploads" / "b";
  PlainFile other(path, O_RDWR | O_CREAT);
  other.lock();
  OperationEvent waits = waits_for_lock(store.environment);
  const bool joins = GENERATE(false, true);
  auto making = in_background([&] {
    if (joins) return error_of(store->executor(), store->concatenate("b", {"part"}, Metadata()));
    return error_of(store->executor(), store->create_upload("b", 600, Metadata()));
  });
  waits.wait();
  CHECK(foreign.does("create b 0"));
  other.unlock();
  CHECK(making.get() == Errc::already_exists);
  struct stat status {};
  REQUIRE(::stat(path.c_str(), &status) == 0);
  CHECK(status.st_size == 0);
  CHECK(status.st_blocks == 0);
}

TEST_CASE_METHOD(Held, "an offset is not moved in an upload that was deleted meanwhile") {
  SqliteStore store(folder.path());
  REQUIRE(foreign.does("lock a"));
  OperationEvent waits = waits_for_lock(store.environment);
  auto moving =
      in_background([&] { return store.wait(store->update_offset_atomic("a", 100, 100)); });
  waits.wait();
  ForeignProgram(folder.path()).exec("DELETE FROM uploads WHERE upload_id = 'a'");
  fs::remove(path());
  CHECK(foreign.does("unlock a"));
  CHECK_FALSE(moving.get());
}

TEST_CASE_METHOD(Held, "a length that another process told is not overruled") {
  SqliteStore store(folder.path());
  store.wait(store->create_upload("b", std::nullopt, Metadata()));
  CHECK(append(store, "b", 0, k_ours, 5) == committed(5));
  REQUIRE(foreign.does("lock b"));
  OperationEvent waits = waits_for_lock(store.environment);
  auto telling =
      in_background([&] { return error_of(store->executor(), store->set_length("b", 5)); });
  waits.wait();
  const fs::path path = folder / "uploads" / "b";
  write_contents(path, contents(path) + "later");  // Of the other process.
  ForeignProgram(folder.path()).exec("UPDATE uploads SET upload_length = 10 WHERE upload_id = 'b'");
  CHECK(foreign.does("unlock b"));
  CHECK(telling.get() == Errc::invalid_argument);
  CHECK(fs::file_size(path) == 10);
}

TEST_CASE_METHOD(Held, "a delete removes no file that it has not locked") {
  SqliteStore store(folder.path());
  fs::remove(path());
  store.environment.on_submit(nullptr);
  store.wait(store->delete_upload("a"));
  CHECK_FALSE(store.wait(store->get_upload("a")));
  CHECK(store.environment.count(Kind::unlink) == 0);
}

TEST_CASE_METHOD(Held, "a delete ends a wait for another process, and goes first", "[A1]") {
  SqliteStore store(folder.path());
  auto older = append_behind_lock(foreign, store);
  auto deleting = in_background([&] { store.wait(store->delete_upload("a")); });
  CHECK(older.get() == AppendResult{AppendStatus::taken_over, 100, false});
  CHECK(foreign.does("unlock a"));
  deleting.get();
  CHECK_FALSE(store.wait(store->get_upload("a")));
  CHECK_FALSE(fs::exists(path()));
}

TEST_CASE_METHOD(Held, "who waits for an upload for too long is told", "[A1]") {
  SqliteStore store(folder.path(), {.lock_timeout = k_at_once});
  REQUIRE(foreign.does("lock a"));
  CHECK(append_error(store, "a", 100) == Errc::lock_timeout);
  CHECK(append_error(store, "a", 100) == std::errc::timed_out);
  CHECK(error_of(store->executor(), store->open_writer("a")) == Errc::lock_timeout);
  const Bytes bytes(10);
  CHECK(error_of(store->executor(), store->write_chunk("a", 100, bytes)) == Errc::lock_timeout);
  CHECK(error_of(store->executor(), store->delete_upload("a")) == Errc::lock_timeout);
  PlainFile other(folder / "uploads" / "c", O_RDWR | O_CREAT);
  other.lock();
  CHECK(error_of(store->executor(), store->create_upload("c", 1, Metadata())) ==
        Errc::lock_timeout);

  // Readers need no lock, other uploads another one.
  CHECK(look_up(store, "a").offset == 100);
  CHECK(store.wait(store->read_file("a", 1000)) == test_bytes(k_theirs, 0, 100));
  create(store, "b", 10);
  CHECK(append(store, "b", 0, k_ours, 10) == committed(10, true));

  CHECK(foreign.does("append a 100 2 100"));
  CHECK(foreign.does("unlock a"));
  CHECK(append(store, "a", 200, k_ours, 100) == committed(300));
  CHECK(has_bytes(path(), k_theirs, 0, 200));
  CHECK(has_bytes(path(), k_ours, 200, 300));
}

TEST_CASE_METHOD(Held, "who waits for the database for too long is told", "[A5]") {
  SqliteStore store(folder.path(), {.commit_timeout = k_at_once});
  create(store, "b", 10);
  REQUIRE(foreign.does("begin"));
  CHECK(append_error(store, "a", 100) == Errc::busy);
  CHECK(append_error(store, "a", 100) == std::errc::device_or_resource_busy);
  CHECK(error_of(store->executor(), store->create_upload("c", 10, Metadata())) == Errc::busy);
  CHECK(error_of(store->executor(), store->delete_upload("b")) == Errc::busy);
  CHECK(error_of(store->executor(), store->set_expiry("b", SystemTime())) == Errc::busy);

  CHECK(look_up(store, "a").offset == 100);
  CHECK(look_up(store, "b").offset == 0);
  CHECK_FALSE(store.wait(store->get_upload("c")));
  CHECK(store.wait(store->list_uploads(std::nullopt, 10)).uploads.size() == 2);
  CHECK(store.wait(store->read_file("a", 1000)) == test_bytes(k_theirs, 0, 100));

  REQUIRE(foreign.does("commit"));
  CHECK(append(store, "a", 100, k_ours, 100) == committed(200));
  CHECK(has_bytes(path(), k_theirs, 0, 100));
  CHECK(has_bytes(path(), k_ours, 100, 200));
  create(store, "c", 10);
  CHECK(append(store, "c", 0, k_ours, 10) == committed(10, true));
  CHECK(append(store, "b", 0, k_ours, 10) == committed(10, true));
  store.wait(store->delete_upload("b"));
  CHECK(foreign.ask("get b") == "none");
}

TEST_CASE_METHOD(Held, "an append waits for the database while readers go on", "[A5]") {
  SqliteStore store(folder.path());
  REQUIRE(foreign.does("begin"));
  OperationEvent writes(store.environment,
                        [](const Operation& operation) { return operation.kind == Kind::write; });
  std::atomic<bool> answered{false};
  auto appending = in_background([&] {
    const AppendResult result = append(store, "a", 100, k_ours, 100);
    answered = true;
    return result;
  });
  writes.wait();
  for (int i = 0; i < 100; ++i) REQUIRE(look_up(store, "a").offset == 100);
  CHECK(store.wait(store->read_file("a", 100)) == test_bytes(k_theirs, 0, 100));
  CHECK_FALSE(answered);
  CHECK(foreign.does("commit"));
  CHECK(appending.get() == committed(200));
  CHECK(foreign.ask("get a") == "ok\t1000\t200\t0\t{}\t-");
}

TEST_CASE("a foreign program commits in time while ours commits back to back", "[A5]") {
  constexpr bool k_slow = k_thread_sanitizer || k_address_sanitizer;
  constexpr int k_commits = k_slow ? 30 : 200;
  constexpr int k_most_us = 5'000'000;
  // In turns with ours there are one or two groups for each of its commits; without turns there
  // were 34 to 81. Between them is room for a machine that is busy with other things.
  constexpr std::uint64_t k_most_groups = 20 * k_commits;
  const bool appends = GENERATE(true, false);
  const int uploads = appends ? 16 : 256;  // So many rows that one always waits to be committed.
  const TemporaryFolder folder;
  ForeignProcess foreign(folder.path());
  SqliteStore store(folder.path());
  std::atomic<bool> done{false};
  auto working = in_background([&] {
    const Work work = appends ? append_until : set_expiry_until;
    return store.wait(all_until(*store, uploads, work, done));
  });
  while (store->stats().commit_groups < 50) std::this_thread::yield();
  const StorageStats before = store->stats();
  const auto began = std::chrono::steady_clock::now();
  const std::string answer = foreign.ask("commits " + std::to_string(k_commits));
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
  const StorageStats after = store->stats();
  done = true;
  CHECK(working.get() > uploads);
  INFO(answer);
  REQUIRE(answer.substr(0, 3) == "ok ");
  CHECK(std::stoi(answer.substr(3)) < k_most_us);
  const std::uint64_t groups = after.commit_groups - before.commit_groups;
  // A sanitizer slows the two programs down unequally.
  if (!k_slow) CHECK(groups < k_most_groups);
  WARN(k_commits << " foreign commits in " << took.count() << " s, the longest in "
                 << answer.substr(3) << " us, beside " << groups << " groups of "
                 << (appends ? "appends" : "rows"));
}
