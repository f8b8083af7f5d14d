// What the tus server removes when it starts: what has expired, and what crashes left behind.

#include <chrono>
#include <filesystem>

#include "../catch.hpp"
#include "../storage/foreign_program.hpp"
#include "tus_fixture.hpp"

using namespace tidemark;
using namespace tidemark::test;

namespace {

/// Starts another server on the folder of one that has left. Returns when its log has `line`.
void clean(const TusFixture& tus, std::vector<std::string> options, const std::string& line) {
  const TusServer server(tus.folder.path(), std::move(options));
  wait_until([&] { return contents(tus.folder / "errors.txt").find(line) != std::string::npos; });
}

void leave(TusFixture& tus) {
  ::kill(tus.server.pid(), SIGTERM);
  REQUIRE(tus.server.program().wait().exit_code == 0);
}

}  // namespace

TEST_CASE("what has expired is deleted, and that is logged") {
  TusFixture tus({"--expire-after", "1s"});
  const std::string whole = tus.create(0);
  const std::string part = tus.create(3, {{"Upload-Concat", "partial"}});
  const std::string final =
      field(tus.tus("POST", "/files/", {{"Upload-Concat", "final;" + part}}), "Location");
  const std::string last = tus.create(10);
  wait_until([&] { return tus.head(last).result_int() == 410; });
  leave(tus);
  clean(tus, {"--expire-after", "1s"}, R"("event":"expired","uploads":3)");
  CHECK(!std::filesystem::exists(tus.data_file(part)));
  CHECK(!std::filesystem::exists(tus.data_file(last)));
  CHECK(std::filesystem::exists(tus.data_file(whole)));  // A complete one does not expire.

  const TusServer server(tus.folder.path());
  HttpConnection http(server);
  for (const std::string& gone : {part, final, last}) {
    CHECK(http.ask("HEAD", gone, {{"Tus-Resumable", "1.0.0"}}).result_int() == 404);
  }
  CHECK(http.ask("HEAD", whole, {{"Tus-Resumable", "1.0.0"}}).result_int() == 200);
}

TEST_CASE("old files without a row are removed, young ones are not, and that is logged") {
  TusFixture tus;
  const std::string kept = tus.create(10);
  REQUIRE(tus.patch(kept, 0, "abc").result_int() == 204);
  leave(tus);
  const auto now = std::filesystem::file_time_type::clock::now();
  for (const char* const name : {"old", "young"}) {
    write_contents(tus.folder / "data" / "uploads" / name, "left");
  }
  std::filesystem::last_write_time(tus.data_file("/files/old"), now - std::chrono::minutes(61));
  std::filesystem::last_write_time(tus.data_file("/files/young"), now - std::chrono::minutes(59));
  std::filesystem::last_write_time(tus.data_file(kept), now - std::chrono::hours(100));
  clean(tus, {}, R"("event":"swept","file":"old")");
  CHECK(!std::filesystem::exists(tus.data_file("/files/old")));
  CHECK(std::filesystem::exists(tus.data_file("/files/young")));
  CHECK(contents(tus.data_file(kept)) == "abc");
}

TEST_CASE("a final upload whose part has gone is removed, and that is logged") {
  TusFixture tus;
  const std::string part = tus.create(3, {{"Upload-Concat", "partial"}});
  const std::string final =
      field(tus.tus("POST", "/files/", {{"Upload-Concat", "final;" + part}}), "Location");
  REQUIRE(tus.head(final).result_int() == 200);
  leave(tus);
  ForeignProgram(tus.folder / "data").exec("DELETE FROM uploads");
  // So has one that was cut short when it was written. Another process may be writing a young one.
  const auto notes = tus.folder / "data" / "unfinished";
  for (const char* const name : {"old", "young"}) write_contents(notes / name, "final;");
  std::filesystem::last_write_time(
      notes / "old", std::filesystem::file_time_type::clock::now() - std::chrono::minutes(61));
  clean(tus, {}, R"("event":"swept","finals":2)");
  CHECK(!std::filesystem::exists(notes / "old"));
  CHECK(std::filesystem::exists(notes / "young"));
  const TusServer server(tus.folder.path());
  HttpConnection http(server);
  CHECK(http.ask("HEAD", final, {{"Tus-Resumable", "1.0.0"}}).result_int() == 404);
}
