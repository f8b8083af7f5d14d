// Uploads that a SQLiteStorage and another implementation of the disk formats work on by turns.

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "sqlite_process.hpp"

using namespace tidemark;
using namespace tidemark::test;
using namespace std::chrono_literals;
namespace fs = std::filesystem;
using Kind = Operation::Kind;

namespace {

constexpr std::uint64_t k_ours = 1;
constexpr std::uint64_t k_theirs = 2;

const SystemTime k_expiry = std::chrono::sys_days{2100y / 1 / 2} + 3h + 4min + 5s;
constexpr const char* k_expiry_text = "2100-01-02T03:04:05+00:00";

/// As if moved over from the other implementation, which made the database.
struct Foreign : SqliteFolder {
  fs::path path(std::string_view id) const { return folder / "uploads" / id; }

  ForeignProcess foreign{folder.path()};
  SqliteStore store{folder.path()};
};

/// Counts the turns of the thread that opens a database: one for each try, and the first.
struct OpeningEnvironment : FaultEnvironment {
  std::unique_ptr<TurnThread> start_thread(const std::string& name, Turn turn) override {
    if (name != "tidemark-open") return FaultEnvironment::start_thread(name, std::move(turn));
    return FaultEnvironment::start_thread(name, [turn = std::move(turn)] {
      const std::chrono::nanoseconds pause = turn();
      ++turns;
      return pause;
    });
  }
  inline static std::atomic<int> turns{0};
};

}  // namespace

TEST_CASE_METHOD(Foreign, "an upload that a foreign program began is continued by turns") {
  REQUIRE(foreign.does("create a 300 {\"filename\": \"x y.bin\", \"n\": \"\\u00e9\"} " +
                       std::string(k_expiry_text)));
  REQUIRE(foreign.does("append a 0 2 100"));

  const Upload found = look_up(store, "a");
  CHECK(found.length == 300);
  CHECK(found.offset == 100);
  CHECK(found.metadata == Metadata{{"filename", "x y.bin"}, {"n", "\xc3\xa9"}});
  CHECK(found.metadata_error.empty());
  CHECK(found.expires_at == k_expiry);
  CHECK_FALSE(found.completed);

  CHECK(append(store, "a", 0, k_ours, 10) == conflict(100));
  CHECK(append(store, "a", 100, k_ours, 50) == committed(150));
  CHECK(foreign.ask("append a 100 2 10") == "conflict 150");
  CHECK(foreign.does("append a 150 2 60"));
  CHECK(append(store, "a", 150, k_ours, 10) == conflict(210));
  CHECK(append(store, "a", 210, k_ours, 90) == committed(300, true));

  // A5: the completing commit takes the expiry away.
  CHECK(foreign.ask("get a") ==
        "ok\t300\t300\t1\t{\"filename\": \"x y.bin\", \"n\": \"\\u00e9\"}\t-");
  CHECK(has_bytes(path("a"), k_theirs, 0, 100));
  CHECK(has_bytes(path("a"), k_ours, 100, 150));
  CHECK(has_bytes(path("a"), k_theirs, 150, 210));
  CHECK(has_bytes(path("a"), k_ours, 210, 300));
  CHECK(fs::file_size(path("a")) == 300);
}

TEST_CASE_METHOD(Foreign, "an upload of ours is read and completed by a foreign program") {
  const Metadata metadata{{"filename", "\xc3\xa9 \"q\".txt"}, {"type", ""}};
  store.wait(store->create_upload("a", 300, metadata, k_expiry));
  CHECK(append(store, "a", 0, k_ours, 100) == committed(100));
  const std::string facts =
      std::string("\t{\"filename\": \"\\u00e9 \\\"q\\\".txt\", \"type\": \"\"}\t") + k_expiry_text;
  CHECK(foreign.ask("get a") == "ok\t300\t100\t0" + facts);
  CHECK(foreign.does("append a 100 2 200"));
  CHECK(foreign.ask("get a") == "ok\t300\t300\t1" + facts);

  const Upload done = look_up(store, "a");
  CHECK(done.completed);
  CHECK(done.offset == 300);
  CHECK(done.metadata == metadata);
  CHECK(append_error(store, "a", 300) == Errc::already_complete);
  const Bytes bytes = store.wait(store->read_file("a", 1000));
  CHECK(bytes.size() == 300);
  CHECK(has_bytes(path("a"), k_ours, 0, 100));
  CHECK(has_bytes(path("a"), k_theirs, 100, 300));
}

TEST_CASE_METHOD(Foreign, "what a foreign program committed is made stable before more", "[A4]") {
  const auto syncs = [&] {
    return store.environment.count(Kind::sync) + store.environment.count(Kind::sync_filesystem);
  };
  // Aligned and large: a write that is stable by itself, so that ours alone would need no sync.
  const std::size_t length = std::size_t{128} << 10;
  create(store, "a", std::nullopt);
  REQUIRE(foreign.does("append a 0 2 131072"));
  store.environment.on_submit(nullptr);
  CHECK(append(store, "a", length, k_ours, length) == committed(2 * length));
  CHECK(syncs() >= 1);
  REQUIRE(foreign.does("append a 262144 2 131072"));
  store.environment.on_submit(nullptr);
  CHECK(append(store, "a", 3 * length, k_ours, length) == committed(4 * length));
  CHECK(syncs() >= 1);
  CHECK(has_bytes(path("a"), k_theirs, 0, length));
  CHECK(has_bytes(path("a"), k_ours, length, 2 * length));
  CHECK(has_bytes(path("a"), k_theirs, 2 * length, 3 * length));
}

TEST_CASE_METHOD(Foreign, "a length that ours defers is -1 to a foreign program") {
  create(store, "a", std::nullopt);
  CHECK(append(store, "a", 0, k_ours, 10) == committed(10));
  CHECK(foreign.ask("get a") == "ok\t-1\t10\t0\t{}\t-");
  REQUIRE(foreign.does("append a 10 2 20"));

  // To the foreign program it is complete now, since 30 >= -1.
  CHECK(foreign.ask("get a") == "ok\t-1\t30\t1\t{}\t-");
  const Upload found = look_up(store, "a");
  CHECK_FALSE(found.length);
  CHECK_FALSE(found.completed);
  CHECK(append(store, "a", 30, k_ours, 10) == committed(40));
  CHECK(foreign.ask("get a") == "ok\t-1\t40\t0\t{}\t-");
  store.wait(store->set_length("a", 50));
  CHECK(foreign.ask("get a") == "ok\t50\t40\t0\t{}\t-");
  CHECK(foreign.does("append a 40 2 10"));
  CHECK(look_up(store, "a").completed);
}

TEST_CASE_METHOD(Foreign, "a length that a foreign program defers is told by ours") {
  REQUIRE(foreign.does("create a -1"));
  CHECK_FALSE(look_up(store, "a").length);
  CHECK(append(store, "a", 0, k_ours, 10) == committed(10));
  store.wait(store->set_length("a", 10));
  CHECK(look_up(store, "a").completed);
  CHECK(foreign.ask("get a") == "ok\t10\t10\t1\t{}\t-");
}

TEST_CASE_METHOD(Foreign, "a delete by each is seen by the other") {
  SECTION("by the foreign program") {
    create(store, "a", 100);
    CHECK(append(store, "a", 0, k_ours, 10) == committed(10));
    REQUIRE(foreign.does("delete a"));
    CHECK_FALSE(store.wait(store->get_upload("a")));
    CHECK(append_error(store, "a", 10) == Errc::not_found);
    CHECK(error_of(store->executor(), store->read_file("a", 10)) == Errc::not_found);
    CHECK(error_of(store->executor(), store->set_length("a", 10)) == Errc::not_found);
    store.wait(store->delete_upload("a"));
  }
  SECTION("by ours") {
    REQUIRE(foreign.does("create a 100"));
    REQUIRE(foreign.does("append a 0 2 10"));
    store.wait(store->delete_upload("a"));
    CHECK(foreign.ask("get a") == "none");
    CHECK(foreign.ask("append a 10 2 10").substr(0, 5) == "error");
  }
  CHECK_FALSE(fs::exists(path("a")));
  SECTION("and the name is free") {
    REQUIRE(foreign.does("create a 20"));
    CHECK(append(store, "a", 0, k_ours, 20) == committed(20, true));
  }
  SECTION("and the name is free for both") {
    create(store, "a", 20);
    CHECK(foreign.does("append a 0 2 20"));
    CHECK(look_up(store, "a").completed);
  }
}

TEST_CASE_METHOD(Foreign, "an upload that a foreign program lets expire ends") {
  REQUIRE(foreign.does("create a 100 {} 2020-01-02T03:04:05.678901+00:00"));
  REQUIRE(foreign.does("create b 100 {} 2020-01-02T03:04:05+05:30"));
  REQUIRE(foreign.does("create c 100 {} 2100-01-02T03:04:05+00:00"));
  REQUIRE(foreign.does("create d 10 {} 2020-01-02T03:04:05+00:00"));
  REQUIRE(foreign.does("append d 0 2 10"));
  CHECK(append_error(store, "a", 0) == Errc::expired);
  std::vector<UploadId> expired = store.wait(store->get_expired_uploads());
  std::ranges::sort(expired);
  CHECK(expired == std::vector<UploadId>{"a", "b"});

  REQUIRE(foreign.does("lock a"));
  CHECK(store.wait(store->cleanup_expired_uploads()) == 1);
  CHECK(foreign.ask("get a") != "none");
  CHECK(fs::exists(path("a")));
  REQUIRE(foreign.does("unlock a"));
  CHECK(store.wait(store->cleanup_expired_uploads()) == 1);
  CHECK(foreign.ask("get a") == "none");
  CHECK(foreign.ask("get b") == "none");
  CHECK_FALSE(fs::exists(path("a")));
  CHECK(foreign.ask("get c") != "none");
  CHECK(look_up(store, "d").completed);
  CHECK(has_bytes(path("d"), k_theirs, 0, 10));
}

TEST_CASE_METHOD(Foreign, "a create of each is taken to the other") {
  REQUIRE(foreign.does("create a 100"));
  CHECK(error_of(store->executor(), store->create_upload("a", 50, Metadata())) ==
        Errc::already_exists);
  CHECK(foreign.ask("get a") == "ok\t100\t0\t0\t{}\t-");
  create(store, "b", 50);
  CHECK(append(store, "b", 0, k_ours, 10) == committed(10));
  CHECK(foreign.ask("create b 100").substr(0, 5) == "error");
  CHECK(look_up(store, "b").length == 50);
  CHECK(has_bytes(path("b"), k_ours, 0, 10));
}

TEST_CASE("a database that another process locks is waited for when it is opened") {
  const TemporaryFolder folder;
  ForeignProcess foreign(folder.path());
  REQUIRE(foreign.does("create a 100"));
  REQUIRE(foreign.does("begin"));
  const auto open = [&] { const SqliteStore store(folder.path(), {.commit_timeout = 1ms}); };
  std::error_code error;
  try {
    open();
  } catch (const StorageError& thrown) {
    error = thrown.code();
  }
  CHECK(error == Errc::busy);

  OpeningEnvironment::turns = 0;
  auto opening = in_background([&] {
    BasicSqliteStore<OpeningEnvironment> store(folder.path());
    return store.wait(store->get_upload("a")).has_value();
  });
  const auto is_refused = [&] {
    return OpeningEnvironment::turns >= 3 || opening.wait_for(0s) == std::future_status::ready;
  };
  while (!is_refused()) std::this_thread::yield();
  CHECK(foreign.does("commit"));
  CHECK(opening.get());
}
