// A process that is stopped (SIGSTOP) for longer than others wait.

#include <csignal>

#include "sqlite_process.hpp"

using namespace tidemark;
using namespace tidemark::test;
using namespace std::chrono_literals;

TEST_CASE_METHOD(SqliteFolder, "a process that is stopped with a lock delays only its upload") {
  SqliteStore store(folder.path(), {.lock_timeout = 50ms, .commit_timeout = 50ms});
  create(store, "a", 1000);
  create(store, "b", 1000);
  StorageProcess other(folder.path());
  other.send("append_held before a 0 2 100");
  REQUIRE(other.receive() == "held");
  other.signal(SIGSTOP);
  CHECK(append_error(store, "a", 0) == Errc::lock_timeout);
  CHECK(append(store, "b", 0, 1, 100) == committed(100));
  CHECK(look_up(store, "a").offset == 0);
  other.signal(SIGCONT);
  CHECK(other.ask("go on") == "committed 100");
  CHECK(append(store, "a", 100, 1, 100) == committed(200));
  CHECK(has_bytes(folder / "uploads" / "a", 2, 0, 100));
}

TEST_CASE_METHOD(SqliteFolder, "a process that is stopped in a transaction delays only commits") {
  SqliteStore store(folder.path(), {.lock_timeout = 50ms, .commit_timeout = 50ms});
  create(store, "a", 1000);
  ForeignProcess other(folder.path());
  REQUIRE(other.does("begin"));
  other.signal(SIGSTOP);
  CHECK(append_error(store, "a", 0) == Errc::busy);
  CHECK(look_up(store, "a").offset == 0);
  other.signal(SIGCONT);
  REQUIRE(other.does("commit"));
  CHECK(append(store, "a", 0, 1, 100) == committed(100));
}
