// Two processes with a SQLiteStorage each, or two storages, on one upload. Which of them comes
// first is made certain by holding one in the middle. A1 to A6 are the steps of an append.

#include "sqlite_process.hpp"

#include <atomic>

using namespace tidemark;
using namespace tidemark::test;
using Kind = Operation::Kind;

namespace {

constexpr std::size_t k_winner_bytes = 3000;
constexpr std::uint64_t k_winner = 1;
constexpr std::uint64_t k_loser = 2;

/// Lets the losing append begin while the winning one is in its middle.
struct Contest : SqliteFolder {
  std::filesystem::path path() const { return folder / "uploads" / "a"; }

  /// `loser` appends while `winner` is held; it has to wait, and finds another offset then.
  template <class Release>
  void lose(SqliteStore& loser, std::size_t length, Release release_winner) {
    const Bytes bytes = test_bytes(k_loser, 0, length);
    OperationEvent waits = waits_for_lock(loser.environment);
    auto losing = in_background([&] { return loser.wait(loser->append("a", 0, bytes)); });
    waits.wait();
    release_winner();
    CHECK(losing.get() == conflict(k_winner_bytes));
    CHECK(loser.environment.count(Kind::write) == 0);
  }

  void check_stored(SqliteStore& store) const {
    CHECK(has_bytes(path(), k_winner, 0, k_winner_bytes));
    CHECK(look_up(store, "a").offset == k_winner_bytes);
    CHECK(append(store, "a", k_winner_bytes, k_loser, 100) == committed(k_winner_bytes + 100));
    CHECK(has_bytes(path(), k_winner, 0, k_winner_bytes));
  }
};

Fault hold(FaultEnvironment& environment, const Operation& operation, bool before) {
  if (operation.kind != Kind::write || environment.count(Kind::write) != 1) return Fault::none();
  return before ? Fault::hold() : Fault::hold_result();
}

}  // namespace

TEST_CASE_METHOD(Contest, "of two processes that append at one offset, one wins", "[A1][A2][A3]") {
  const std::string where = GENERATE("before", "after");
  const std::size_t length = GENERATE(500U, 5000U, 100'000U);
  SqliteStore loser(folder.path());
  StorageProcess winner(folder.path());
  create(loser, "a", 1'000'000);
  REQUIRE(winner.ask("append_held " + where + " a 0 1 3000") == "held");
  lose(loser, length, [&] { CHECK(winner.ask("go") == "committed 3000"); });
  check_stored(loser);
  CHECK(winner.wait() == 0);
}

TEST_CASE_METHOD(Contest, "of two storages that append at one offset, one wins", "[A1][A2][A3]") {
  const bool before = GENERATE(true, false);
  const std::size_t length = GENERATE(500U, 5000U);
  SqliteStore winner(folder.path());
  SqliteStore loser(folder.path());
  create(loser, "a", 1'000'000);
  winner.environment.on_submit([&](const Operation& operation, std::uint64_t) {
    return hold(winner.environment, operation, before);
  });
  auto winning = in_background([&] { return append(winner, "a", 0, k_winner, k_winner_bytes); });
  winner.environment.wait_for_held();
  lose(loser, length, [&] {
    winner.environment.release();
    CHECK(winning.get() == committed(k_winner_bytes));
  });
  check_stored(loser);
}

TEST_CASE_METHOD(Contest, "of two tasks that append at one offset, one wins", "[A1][A2][A3]") {
  const bool before = GENERATE(true, false);
  const std::size_t length = GENERATE(500U, 5000U);
  SqliteStore store(folder.path());
  create(store, "a", 1'000'000);
  store.environment.on_submit([&](const Operation& operation, std::uint64_t) {
    return hold(store.environment, operation, before);
  });
  auto winning = in_background([&] { return append(store, "a", 0, k_winner, k_winner_bytes); });
  store.environment.wait_for_held();
  const auto both = [](SQLiteStorage& storage, FaultEnvironment& environment,
                       Bytes bytes) -> Task<AppendResult> {
    const auto release = [](SQLiteStorage& in, FaultEnvironment& held) -> Task<void> {
      // The other one has begun, and has asked for another look at the row if it does so too early.
      const std::optional<Upload> upload = co_await in.get_upload("a");
      CHECK(upload->offset == 0);
      held.release();
    };
    auto results = co_await when_all(storage.append("a", 0, bytes), release(storage, environment));
    co_return std::get<0>(results);
  };
  const Bytes bytes = test_bytes(k_loser, 0, length);
  CHECK(store.wait(both(*store, store.environment, bytes)) == conflict(k_winner_bytes));
  CHECK(winning.get() == committed(k_winner_bytes));
  CHECK(store.environment.count(Kind::write) == 1);
  store.environment.on_submit(nullptr);
  check_stored(store);
}

TEST_CASE_METHOD(Contest, "an upload is locked until its row is committed", "[A5][A6]") {
  SqliteStore loser(folder.path());
  StorageProcess winner(folder.path());
  ForeignProcess foreign(folder.path());
  create(loser, "a", 1'000'000);
  REQUIRE(winner.ask("append_held after a 0 1 3000") == "held");
  REQUIRE(foreign.does("begin"));
  lose(loser, 5000, [&] {
    REQUIRE(loser.environment.count(Kind::write) == 0);
    OperationEvent waits = waits_for_lock(loser.environment, 5);
    winner.send("go");
    // Its commit waits for the foreign program; the other append tries and tries.
    waits.wait();
    CHECK(loser.environment.count(Kind::write) == 0);
    CHECK(foreign.does("commit"));
    CHECK(winner.receive() == "committed 3000");
  });
  check_stored(loser);
}

TEST_CASE_METHOD(Contest, "a second append goes on where that of another process ended", "[A2]") {
  SqliteStore store(folder.path());
  StorageProcess other(folder.path());
  create(store, "a", 1000);
  CHECK(append(store, "a", 0, 1, 100) == committed(100));
  CHECK(other.ask("append a 0 2 50") == "offset_conflict 100");
  CHECK(other.ask("append a 100 2 300") == "committed 400");
  CHECK(append(store, "a", 100, 3, 10) == conflict(400));
  CHECK(append(store, "a", 500, 3, 10) == conflict(400));
  CHECK(append(store, "a", 400, 3, 600) == committed(1000, true));
  CHECK(other.ask("append a 1000 2 1").substr(0, 5) == "error");
  CHECK(has_bytes(path(), 1, 0, 100));
  CHECK(has_bytes(path(), 2, 100, 400));
  CHECK(has_bytes(path(), 3, 400, 1000));
}

TEST_CASE_METHOD(Contest, "an upload is free once the process that wrote it is killed",
                 "[A1][A5]") {
  const std::string where = GENERATE("before", "after");
  const std::size_t length = GENERATE(200U, 5000U);
  SqliteStore store(folder.path());
  StorageProcess killed(folder.path());
  create(store, "a", 500 + length);
  REQUIRE(killed.ask("append a 0 1 500") == "committed 500");
  REQUIRE(killed.ask("append_held " + where + " a 500 1 200") == "held");
  const Bytes bytes = test_bytes(k_loser, 500, length);

  SECTION("before another one asks for it") {
    killed.kill();
    CHECK(look_up(store, "a").offset == 500);
    CHECK(store.wait(store->append("a", 500, bytes)) == committed(500 + length, true));
  }
  SECTION("while another one waits for it") {
    OperationEvent waits = waits_for_lock(store.environment);
    auto next = in_background([&] { return store.wait(store->append("a", 500, bytes)); });
    waits.wait();
    killed.kill();
    CHECK(next.get() == committed(500 + length, true));
  }
  SECTION("while its commit waits") {
    ForeignProcess foreign(folder.path());
    REQUIRE(foreign.does("begin"));
    OperationEvent waits = waits_for_lock(store.environment);
    auto next = in_background([&] { return store.wait(store->append("a", 500, bytes)); });
    waits.wait();
    killed.send("go");
    killed.kill();
    CHECK(foreign.does("commit"));
    CHECK(next.get() == committed(500 + length, true));
  }
  CHECK(has_bytes(path(), 1, 0, 500));
  CHECK(has_bytes(path(), k_loser, 500, 500 + length));
  CHECK(std::filesystem::file_size(path()) == 500 + length);
}

TEST_CASE("stats are answered in any thread while a storage closes") {
  const TemporaryFolder folder;
  SqliteStore store(folder.path());
  create(store, "a", 100);
  std::atomic<bool> done{false};
  auto asking = in_background([&] {
    std::uint64_t asked = 0;
    for (; !done; ++asked) static_cast<void>(store->stats());
    return asked;
  });
  CHECK(append(store, "a", 0, 1, 100) == committed(100, true));
  store.wait(store->close(std::chrono::seconds(60)));
  done = true;
  CHECK(asking.get() > 0);
}
