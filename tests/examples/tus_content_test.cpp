// The tus server's uploads as others read them: their content, and the list of them.

#include <chrono>
#include <csignal>
#include <filesystem>
#include <memory>
#include <unistd.h>
#include <vector>

#include <boost/asio/read.hpp>

#include "../catch.hpp"
#include "../storage/foreign_program.hpp"
#include "tus_fixture.hpp"

using namespace tidemark;
using namespace tidemark::test;

namespace {

constexpr std::size_t k_large = std::size_t{24} << 20;  // More than sockets hold.

/// A client that asks for content and reads as much of it as it wants.
struct SlowReader {
  SlowReader(const TusServer& server, const std::string& location) : http(server) {
    http.send("GET " + location + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    begin.resize(http.socket().read_some(boost::asio::buffer(begin)));
  }
  /// The end of the stream, or what came before it was cut off.
  std::string rest() {
    std::string text;
    boost::system::error_code end;
    boost::asio::read(http.socket(), boost::asio::dynamic_buffer(text), end);
    return text;
  }
  std::string begin = std::string(1024, ' ');
  HttpConnection http;
};

}  // namespace

TEST_CASE("the content is given in ranges") {
  TusFixture tus;
  const std::string location = tus.create(10, {{"Upload-Metadata", "filetype aW1hZ2UvcG5n"}});
  const auto get = [&](const Fields& fields) { return tus.http.ask("GET", location, fields); };
  CHECK(get({}).result_int() == 204);
  CHECK(get({{"Range", "bytes=0-"}}).result_int() == 416);
  REQUIRE(tus.patch(location, 0, "012345").result_int() == 204);

  const HttpResponse growing = get({});
  CHECK(growing.result_int() == 206);
  CHECK(growing.body() == "012345");
  CHECK(field(growing, "Content-Range") == "bytes 0-5/10");
  const std::string tag = field(growing, "ETag");
  REQUIRE(tus.patch(location, 6, "6789").result_int() == 204);

  const HttpResponse whole = get({});
  CHECK(whole.result_int() == 200);
  CHECK(field(whole, "Content-Type") == "image/png");
  CHECK(field(whole, "X-Content-Type-Options") == "nosniff");
  CHECK(field(whole, "ETag") == tag);
  const HttpResponse rest = get({{"Range", "bytes=6-"}, {"If-Range", tag}});
  CHECK(rest.result_int() == 206);
  CHECK(rest.body() == "6789");
  CHECK(get({{"Range", "bytes=-3"}}).body() == "789");
  CHECK(get({{"Range", "bytes=2-3"}}).body() == "23");
  CHECK(get({{"Range", "bytes=9-99"}}).body() == "9");
  CHECK(get({{"Range", "bytes=6-"}, {"If-Range", "\"other\""}}).body() == "0123456789");
  CHECK(get({{"Range", "bytes=1-2,4-5"}}).body() == "0123456789");
  CHECK(get({{"If-None-Match", tag}}).result_int() == 304);
  const HttpResponse beyond = get({{"Range", "bytes=10-"}});
  CHECK(beyond.result_int() == 416);
  CHECK(field(beyond, "Content-Range") == "bytes */10");
  CHECK(get({{"If-None-Match", "\"other\", W/" + tag}}).result_int() == 304);
  CHECK(get({{"If-None-Match", "\"other\""}, {"If-None-Match", tag}}).result_int() == 304);
  CHECK(get({{"If-None-Match", "*"}}).result_int() == 304);
  CHECK(get({{"If-None-Match", "\"other\""}}).result_int() == 200);
  // A range is of GET alone.
  const HttpResponse head = tus.http.ask("HEAD", location, {{"Range", "bytes=2-3"}});
  CHECK(head.result_int() == 200);
  CHECK(field(head, "Content-Length") == "10");
}

TEST_CASE("a range beyond an upload of unknown length says how long it is by now") {
  TusFixture tus;
  const std::string location =
      field(tus.tus("POST", "/files/", {{"Upload-Defer-Length", "1"}}), "Location");
  REQUIRE(tus.patch(location, 0, "abc").result_int() == 204);
  CHECK(tus.content(location) == "abc");
  const HttpResponse beyond = tus.http.ask("GET", location, {{"Range", "bytes=3-"}});
  CHECK(beyond.result_int() == 416);
  CHECK(field(beyond, "Content-Range") == "bytes */3");
}

TEST_CASE("a client that goes on reading is not cut off, however slow it is") {
  const std::string bytes = test_text(1, k_large);  // Before the connection's second begins.
  TusFixture tus({"--idle-timeout", "1"});
  const std::string location = tus.create(k_large);
  REQUIRE(tus.patch(location, 0, bytes).result_int() == 204);
  SlowReader reader(tus.server, location);
  std::string text = reader.begin;
  for (int i = 0; i < 12; ++i) {
    ::usleep(300'000);  // 200 KiB a second: it is being slow that is tested.
    std::string piece(std::size_t{64} << 10, ' ');
    boost::asio::read(reader.http.socket(), boost::asio::buffer(piece));
    text += piece;
  }
  text += reader.rest();
  CHECK((text.substr(text.find("\r\n\r\n") + 4) == bytes));
}

TEST_CASE("clients that do not read what they asked for hold up no upload") {
  TusFixture tus({"--idle-timeout", "86400"});  // Nobody is cut off for it.
  const std::string location = tus.create(k_large);
  REQUIRE(tus.patch(location, 0, test_text(1, k_large)).result_int() == 204);
  std::vector<std::unique_ptr<SlowReader>> readers;
  // Were a piece of 256 KiB kept for each, they would have all of the server's buffers.
  for (int i = 0; i < 110; ++i) {
    readers.push_back(std::make_unique<SlowReader>(tus.server, location));
  }
  const std::string other = tus.create(3);
  CHECK(tus.patch(other, 0, "abc").result_int() == 204);
  CHECK(readers.front()->rest().size() >= k_large - 1024);
}

TEST_CASE("content that cannot be read to its end is cut off, without an answer in its middle") {
  TusFixture tus;
  const std::string location = tus.create(k_large);
  REQUIRE(tus.patch(location, 0, std::string(k_large, 'x')).result_int() == 204);
  SlowReader reader(tus.server, location);
  std::filesystem::resize_file(tus.data_file(location), 0);
  const std::string rest = reader.rest();
  CHECK(rest.size() < k_large);
  CHECK(rest.find("HTTP/") == rest.npos);
}

TEST_CASE("SIGTERM ends content, however fast it is read") {
  TusFixture tus;
  const std::string location = tus.create(1);
  REQUIRE(tus.patch(location, 0, "x").result_int() == 204);
  constexpr std::uint64_t k_endless = std::uint64_t{1} << 40;  // A hole.
  std::filesystem::resize_file(tus.data_file(location), k_endless);
  const std::string size = std::to_string(k_endless);
  ForeignProgram(tus.folder / "data")
      .exec("UPDATE uploads SET upload_length = " + size + ", offset = " + size);
  SlowReader reader(tus.server, location);
  const auto began = std::chrono::steady_clock::now();
  ::kill(tus.server.pid(), SIGTERM);
  std::string piece(std::size_t{1} << 20, ' ');
  boost::system::error_code end;
  while (!end) reader.http.socket().read_some(boost::asio::buffer(piece), end);
  // What still runs is interrupted after 2 s, and what that does not end is dropped after 4 s.
  CHECK(std::chrono::steady_clock::now() - began < std::chrono::seconds(4));
  CHECK(tus.server.program().wait().exit_code == 0);
}

TEST_CASE("uploads are listed page by page") {
  TusFixture tus;
  for (int i = 0; i < 3; ++i) tus.create(5, {{"Upload-Metadata", "filename YQ==,flag"}});
  const HttpResponse first = tus.http.ask("GET", "/files/?limit=2", {});
  CHECK(field(first, "Content-Type") == "application/json");
  CHECK(first.body().find(R"("metadata":{"filename":"a","flag":null})") != std::string::npos);
  const std::size_t next = first.body().find(R"("next":")");
  REQUIRE(next != std::string::npos);
  const HttpResponse last =
      tus.http.ask("GET", "/files/?after=" + first.body().substr(next + 8, 32), {});
  CHECK(last.body().find(R"("next":null)") != std::string::npos);
}

TEST_CASE("the newest upload is listed first") {
  TusFixture tus;
  const std::string older = tus.create(5);
  std::string newer = older;
  while (newer.substr(0, 19) == older.substr(0, 19))
    newer = tus.create(5);  // The same millisecond.
  const HttpResponse listing = tus.http.ask("GET", "/files/?limit=1", {});
  CHECK(listing.body().find(newer.substr(7)) != std::string::npos);
}

TEST_CASE("a page of the list is of moderate size, and the next one goes on") {
  TusFixture tus;
  std::string metadata = "a ";
  while (metadata.size() <= (8 << 10)) metadata += "QUFB";
  CHECK(tus.tus("POST", "/files/", {{"Upload-Length", "5"}, {"Upload-Metadata", metadata}})
            .result_int() == 431);
  metadata.resize(metadata.size() - 4);
  constexpr int k_uploads = 60;
  for (int i = 0; i < k_uploads; ++i) {
    tus.create(5, {{"Upload-Metadata", metadata}});
  }
  std::size_t listed = 0;
  std::string after;
  int pages = 0;
  for (bool more = true; more; ++pages) {
    const HttpResponse page = tus.http.ask("GET", "/files/?limit=100" + after, {});
    REQUIRE(page.result_int() == 200);
    CHECK(page.body().size() < 300 << 10);
    for (std::size_t at = 0; (at = page.body().find("\"id\":", at)) != std::string::npos; ++at) {
      ++listed;
    }
    const std::size_t next = page.body().find("\"next\":\"");
    more = next != std::string::npos;
    if (more) after = "&after=" + page.body().substr(next + 8, 32);
  }
  CHECK(listed == k_uploads);
  CHECK(pages == 2);
}
