// Expiry in SQLiteStorage: as a time whatever its text, and a cleanup that is in nobody's way.

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <filesystem>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include <tidemark/engine/when_all.hpp>

#include "../sanitizers.hpp"
#include "sqlite_protocol.hpp"
#include "statement_log.hpp"

using namespace tidemark;
using namespace tidemark::test;
using namespace std::chrono_literals;
namespace fs = std::filesystem;
using Kind = Operation::Kind;

namespace {

struct Form {
  const char* text;
  bool expired;  // At 2024-05-06T12:53:20.123456Z, a Monday, the 127th day of its year.
};

constexpr Form k_forms[] = {
    {"2024-05-06T12:53:20+00:00", true},
    {"2024-05-06T12:53:21+00:00", false},
    {"2024-05-06T12:53:20.123456+00:00", true},
    {"2024-05-06T12:53:20.123457+00:00", false},
    {"2024-05-06T12:53:20Z", true},
    {"2024-05-06T12:53:21Z", false},
    {"2024-05-06T12:53:20.1Z", true},
    {"2024-05-06T12:53:20.2Z", false},
    {"2024-05-06T12:53:20,1Z", true},
    {"2024-05-06T12:53:20,2Z", false},
    {"2024-05-06T14:53:20+02:00", true},  // As text it is later than now.
    {"2024-05-06T14:53:21+02:00", false},
    {"2024-05-06T07:53:20-05:00", true},
    {"2024-05-06T07:53:21-05:00", false},  // As text it is earlier than now.
    {"2024-05-06T14:53:20+0200", true},
    {"2024-05-06T14:53:21+0200", false},
    {"20240506T125320Z", true},
    {"20240506T125321Z", false},
    {"20240506T145320+02", true},
    {"20240506T145321+02", false},
    {"2024-05-06 12:53:20", true},
    {"2024-05-06 12:53:21", false},
    {"2024-05-06 12:53:20+00:00", true},
    {"2024-05-06T12:53", true},
    {"2024-05-06T12:54", false},
    {"2024-05-06", true},
    {"2024-05-07", false},
    {"20240506", true},
    {"20240507", false},
    {"2024-W19-1", true},
    {"2024-W19-2", false},
    {"2024-127", true},
    {"2024-128", false},
    {"1999-12-31T23:59:59Z", true},
    {"9999-12-31T23:59:59Z", false},
    {"soon", false},
    {"", false},
};

/// Makes `count` uploads that have expired, in one transaction and with files.
void create_expired(ProtocolStore& store, int count) {
  store.foreign.exec("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < " +
                     std::to_string(count) +
                     ") INSERT INTO uploads (upload_id, upload_length, expires_at) "
                     "SELECT 'expired-' || i, 1000, '2024-05-06T12:00:00+00:00' FROM n");
  for (int i = 1; i <= count; ++i) {
    PlainFile(store.path("expired-" + std::to_string(i)), O_RDWR | O_CREAT);
  }
}

Task<std::size_t> clean_up(Storage& storage, bool& done) {
  const std::size_t count = co_await storage.cleanup_expired_uploads();
  done = true;
  co_return count;
}

/// Gives how many appends were acknowledged before it was done.
Task<std::uint64_t> append_until(Storage& storage, UploadId id, const bool& done) {
  std::uint64_t count = 0;
  for (; !done; ++count) {
    const AppendResult result = co_await append_test_bytes(storage, id, 1, count, 1);
    if (result.status != AppendStatus::committed) break;
  }
  co_return count;
}

/// Cleans up `count` uploads while another one grows.
void check_cleanup_of(ProtocolStore& store, int count) {
  create_expired(store, count);
  store.create("a", std::nullopt);
  store.create("other", 1000, store.environment.system_now() + 1h);
  bool done = false;
  const StorageStats before = (*store).stats();
  const auto start = std::chrono::steady_clock::now();
  const auto results =
      store.wait(when_all(clean_up(*store, done), append_until(*store, "a", done)));
  const auto took = std::chrono::steady_clock::now() - start;
  const std::uint64_t transactions = (*store).stats().commit_groups - before.commit_groups;
  const std::uint64_t appends = std::get<1>(results);
  UNSCOPED_INFO(count << " uploads in "
                      << std::chrono::duration_cast<std::chrono::milliseconds>(took).count()
                      << " ms, " << appends << " appends in " << transactions << " transactions");
  CHECK(std::get<0>(results) == static_cast<std::size_t>(count));
  CHECK(appends >= 20);
  CHECK(transactions >= 20);
  CHECK(store.foreign.ask_number("SELECT count(*) FROM uploads") == 2);
  const fs::directory_iterator files(store.options().upload_dir);
  CHECK(std::distance(files, fs::directory_iterator()) == 2);
  store.check_upload("a", appends);
}

/// How SQLite finds the rows of `sql`.
std::string plan_of(const fs::path& database, const std::string& sql) {
  detail::Database db(database.string(), SQLITE_OPEN_READWRITE);
  detail::Statement explain(db, "EXPLAIN QUERY PLAN " + sql);
  std::string plan;
  while (explain.step()) plan += std::string(explain.text(3)) + "\n";
  return plan;
}

}  // namespace

TEST_CASE_METHOD(ProtocolFixture, "expires_at is compared as a time, in whatever form it is") {
  std::set<UploadId> expired;
  std::vector<UploadId> ids;
  for (const Form& form : k_forms) {
    const UploadId id("u" + std::to_string(ids.size()));
    ids.push_back(id);
    create(id, 10);
    foreign.exec("UPDATE uploads SET expires_at = '" + std::string(form.text) +
                 "' WHERE upload_id = '" + std::string(id.view()) + "'");
    if (form.expired) expired.insert(id);
  }
  const std::vector<UploadId> found = wait((**this).get_expired_uploads());
  for (std::size_t i = 0; i < ids.size(); ++i) {
    CAPTURE(k_forms[i].text);
    CHECK(std::ranges::count(found, ids[i]) == (k_forms[i].expired ? 1 : 0));
    if (k_forms[i].expired) {
      CHECK(append_error(ids[i], 0, 1) == Errc::expired);
    } else {
      CHECK(append(ids[i], 0, 1) == committed(1));
      CHECK(foreign.ask("expires_at", ids[i].view()) == k_forms[i].text);
    }
  }
  CHECK(wait((**this).cleanup_expired_uploads()) == expired.size());
  for (const UploadId& id : ids) {
    CAPTURE(id);
    CHECK(foreign.has_row(id.view()) != expired.contains(id));
    CHECK(fs::exists(path(id)) != expired.contains(id));
  }
}

TEST_CASE_METHOD(ProtocolFixture, "what is complete never expires") {
  create_at("a", 100, 100);
  create("empty", 0, environment.system_now() + 1s);
  create_at("deferred", 100, std::nullopt);
  foreign.exec("UPDATE uploads SET expires_at = '2000-01-01T00:00:00Z'");
  CHECK(wait((**this).get_expired_uploads()) == std::vector<UploadId>{"deferred"});
  CHECK(append_error("a", 100, 1) == Errc::already_complete);
  CHECK(append_error("deferred", 100, 1) == Errc::expired);
  CHECK(wait((**this).cleanup_expired_uploads()) == 1);
  check_upload("a", 100);
  check_upload("empty", 0);
  CHECK_FALSE(foreign.has_row("deferred"));
  const fs::path out = folder / "out";
  wait((**this).release_to("a", out));
  CHECK(fs::file_size(out) == 100);
}

TEST_CASE_METHOD(ProtocolFixture, "a cleanup leaves alone what somebody writes") {
  for (const char* id : {"free", "locked", "written"}) {
    create_at(id, 100, 1000);
    wait((**this).set_expiry(id, environment.system_now() + 1s));
  }
  PlainFile other(path("locked"));
  REQUIRE(other.try_lock());
  const std::unique_ptr<UploadWriter> writer = wait((**this).open_writer("written"));
  environment.advance(2s);
  CHECK(wait((**this).cleanup_expired_uploads()) == 1);
  CHECK(wait((**this).cleanup_expired_uploads()) == 0);
  CHECK(foreign.has_row("locked"));
  CHECK(fs::exists(path("locked")));
  CHECK_FALSE(foreign.has_row("free"));
  CHECK(wait(write_bytes(**this, *writer, 900)));
  CHECK(wait(writer->close()) == committed(1000, true));
  other.unlock();
  CHECK(wait((**this).cleanup_expired_uploads()) == 1);
  CHECK_FALSE(foreign.has_row("locked"));
  check_upload("written", 1000);
}

TEST_CASE_METHOD(ProtocolFixture, "a cleanup looks again under the lock") {
  const std::string now = GENERATE("2099-01-01T00:00:00Z", "completed");
  create_at("a", 100, 1000, environment.system_now() + 1s);
  environment.advance(2s);
  environment.on_submit([&](const Operation& operation, std::uint64_t) {
    if (operation.kind == Kind::lock && name_of(operation) == "a") {
      foreign.exec(now == "completed" ? "UPDATE uploads SET upload_length = 100"
                                      : "UPDATE uploads SET expires_at = '" + now + "'");
    }
    return Fault::none();
  });
  CHECK(wait((**this).cleanup_expired_uploads()) == 0);
  environment.on_submit(nullptr);
  CHECK(foreign.has_row("a"));
  check_upload("a", 100);
}

TEST_CASE_METHOD(ProtocolFixture, "a row that contradicts itself stops no cleanup") {
  for (const char* id : {"a", "bad", "c"}) create(id, 1000, environment.system_now() + 1s);
  foreign.exec("UPDATE uploads SET offset = -5 WHERE upload_id = 'bad'");
  environment.advance(2s);
  CHECK(wait((**this).get_expired_uploads()).size() == 2);
  CHECK(wait((**this).cleanup_expired_uploads()) == 2);
  CHECK(foreign.has_row("bad"));
  CHECK(fs::exists(path("bad")));
}

TEST_CASE_METHOD(ProtocolFixture, "a cleanup removes rows whose files are gone or are none") {
  create("gone", 1000, environment.system_now() + 1s);
  create_at("lost", 100, 1000, environment.system_now() + 1s);
  fs::remove(path("gone"));
  fs::remove(path("lost"));
  environment.advance(2s);
  CHECK(wait((**this).cleanup_expired_uploads()) == 2);
  CHECK(wait((**this).get_expired_uploads()).empty());
}

TEST_CASE_METHOD(ProtocolFixture,
                 "a cleanup of many goes in batches, and appends go on meanwhile") {
  check_cleanup_of(*this, k_thread_sanitizer || k_address_sanitizer ? 2000 : 10'000);
}
TEST_CASE_METHOD(ProtocolFixture, "a cleanup of 100,000 beside appends", "[.][large]") {
  check_cleanup_of(*this, 100'000);
}

TEST_CASE_METHOD(SqliteFolder, "no statement of an operation reads the whole table") {
  std::set<std::string> statements;
  {
    const StatementLog log;
    ProtocolStore store(folder.path());
    store.create("a", 1000, store.environment.system_now() + 1h);
    store.append("a", 0, 500);
    store.wait((*store).set_metadata("a", Metadata{{"k", "v"}}));
    store.wait((*store).set_expiry("a", store.environment.system_now() + 2h));
    store.append("a", 500, 500);
    store.create("deferred", std::nullopt, store.environment.system_now() + 1h);
    store.append("deferred", 0, 10);
    store.wait((*store).set_length("deferred", 1000));
    const Metadata none;
    store.wait((*store).concatenate("whole", {"a"}, none));
    store.wait((*store).list_uploads(UploadId("a"), 10));
    store.environment.advance(3h);
    CHECK(store.wait((*store).get_expired_uploads()).size() == 1);
    CHECK(store.wait((*store).cleanup_expired_uploads()) == 1);
    store.wait((*store).delete_upload("a"));
    statements = log.statements();
  }
  int of_uploads = 0;
  for (const std::string& sql : statements) {
    if (!sql.starts_with("SELECT") && !sql.starts_with("UPDATE") && !sql.starts_with("DELETE")) {
      continue;
    }
    if (sql.find("uploads") == std::string::npos || sql.find("sqlite_schema") != sql.npos ||
        sql.find("pragma_") != sql.npos) {
      continue;
    }
    ++of_uploads;
    CAPTURE(sql);
    const std::string plan = plan_of(folder / "uploads.db", sql);
    CHECK_THAT(plan, Catch::Matchers::Contains("SEARCH uploads"));
    CHECK_THAT(plan, !Catch::Matchers::Contains("SCAN"));
    CHECK_THAT(plan, !Catch::Matchers::Contains("TEMP B-TREE"));
    const bool of_expiry = sql.find("julianday") != std::string::npos;
    if (of_expiry) CHECK_THAT(plan, Catch::Matchers::Contains("uploads_expiring"));
  }
  CHECK(of_uploads >= 8);
}
