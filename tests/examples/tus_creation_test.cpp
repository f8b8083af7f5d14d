// How uploads come to be at the tus server: with bytes, without a length, of parts.

#include <chrono>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "../catch.hpp"
#include "../storage/foreign_program.hpp"
#include "tus_fixture.hpp"

using namespace tidemark;
using namespace tidemark::test;

namespace {

const std::string k_of_nothing = "Upload-Checksum: crc32 AAAAAA==\r\n";
const std::string k_of_something = "Upload-Checksum: crc32 NSRBwg==\r\n";

/// A final upload whose parts became complete after it was created. `concat` are the others of
/// them, each with a space behind it.
std::string create_joinable(TusFixture& tus, const std::string& concat) {
  const std::string last = tus.create(1, {{"Upload-Concat", "partial"}});
  const std::string whole =
      field(tus.tus("POST", "/files/", {{"Upload-Concat", "final;" + concat + last}}), "Location");
  REQUIRE(tus.patch(last, 0, "x").result_int() == 204);
  return whole;
}

}  // namespace

TEST_CASE("an upload is created with its first bytes") {
  TusFixture tus;
  const HttpResponse answer = tus.tus(
      "POST", "/files/", {{"Upload-Length", "6"}, {"Content-Type", k_offset_octets}}, "abc");
  REQUIRE(answer.result_int() == 201);
  CHECK(field(answer, "Upload-Offset") == "3");
  const std::string location = field(answer, "Location");
  CHECK(tus.patch(location, 3, "def").result_int() == 204);
  CHECK(tus.content(location) == "abcdef");
}

TEST_CASE("an upload without bytes is created with them") {
  TusFixture tus;
  const auto create = [&](const std::string& more, const std::string& body) {
    tus.http.send(
        "POST /files/ HTTP/1.1\r\nHost: x\r\nTus-Resumable: 1.0.0\r\nUpload-Length: 0\r\n"
        "Content-Type: application/offset+octet-stream\r\n" +
        more + "\r\n\r\n" + body);
    return tus.http.receive();
  };
  for (const auto& [more, body] :
       {std::pair{"Content-Length: 0", ""}, std::pair{"Transfer-Encoding: chunked", "0\r\n\r\n"}}) {
    const HttpResponse answer = create(more, body);
    CHECK(answer.result_int() == 201);
    CHECK(field(answer, "Upload-Offset") == "0");
    CHECK(tus.content(field(answer, "Location")).empty());
    // Who did not hear the answer asks once more.
    const std::vector<std::pair<std::string, unsigned>> digests = {
        {"", 204}, {k_of_nothing, 204}, {k_of_something, 460}};
    for (const auto& [digest, status] : digests) {
      tus.http.send(patch_header(field(answer, "Location"), 0, digest + more) + body);
      CHECK(tus.http.receive().result_int() == status);
    }
    CHECK(create(k_of_nothing + more, body).result_int() == 201);
    CHECK(create(k_of_something + more, body).result_int() == 460);
  }
  const std::string chunked = "Trailer: Upload-Checksum\r\nTransfer-Encoding: chunked";
  CHECK(create(chunked, "0\r\n" + k_of_nothing + "\r\n").result_int() == 201);
  CHECK(create(chunked, "0\r\n" + k_of_something + "\r\n").result_int() == 460);
  CHECK(create("Content-Length: 1", "x").result_int() == 413);
}

TEST_CASE("an upload whose first bytes are refused is not there") {
  TusFixture tus({"--quota", "100"});
  const auto [status, fields, body] = GENERATE(
      table<unsigned, Fields, std::string>({{413, {}, std::string(101, 'x')},
                                            {460, {{"Upload-Checksum", "crc32 AAAAAA=="}}, "abc"},
                                            {400, {{"Trailer", "Upload-Checksum"}}, "abc"}}));
  Fields all = fields;
  all.insert(all.end(), {{"Upload-Length", "100"}, {"Content-Type", k_offset_octets}});
  CHECK(tus.tus("POST", "/files/", all, body).result_int() == status);
  HttpConnection other(tus.server);
  CHECK(other.ask("GET", "/files/", {}).body() == R"({"uploads":[],"next":null})");
  // Nor does it count any more.
  CHECK(other.ask("POST", "/files/", {{"Tus-Resumable", "1.0.0"}, {"Upload-Length", "100"}})
            .result_int() == 201);
}

TEST_CASE("who takes over an upload that is created with its first bytes keeps it") {
  TusFixture tus;
  HttpConnection creating(tus.server);
  creating.send(
      "POST /files/ HTTP/1.1\r\nHost: x\r\nTus-Resumable: 1.0.0\r\nUpload-Length: 10\r\n"
      "Content-Type: application/offset+octet-stream\r\nContent-Length: 10\r\n\r\nabc");
  std::string listing;
  wait_until([&] {
    listing = tus.http.ask("GET", "/files/", {}).body();
    return listing.find(R"("offset":3)") != std::string::npos;
  });
  const std::size_t begin = listing.find(R"("id":")") + 6;
  const std::string location = "/files/" + listing.substr(begin, listing.find('"', begin) - begin);
  CHECK(tus.offset(location) == 3);
  CHECK(creating.receive().result_int() == 409);
  CHECK(tus.patch(location, 3, "defghij").result_int() == 204);
  CHECK(tus.content(location) == "abcdefghij");
}

TEST_CASE("a length is told later, with a PATCH") {
  TusFixture tus;
  const HttpResponse created = tus.tus("POST", "/files/", {{"Upload-Defer-Length", "1"}});
  REQUIRE(created.result_int() == 201);
  const std::string location = field(created, "Location");
  CHECK(field(tus.head(location), "Upload-Defer-Length") == "1");
  CHECK(tus.patch(location, 0, "abc").result_int() == 204);
  CHECK(tus.patch(location, 3, "def", {{"Upload-Length", "6"}}).result_int() == 204);
  const HttpResponse told = tus.head(location);
  CHECK(field(told, "Upload-Length") == "6");
  CHECK(field(told, "Upload-Defer-Length").empty());
  CHECK(tus.content(location) == "abcdef");
}

TEST_CASE("a PATCH for another offset tells no length") {
  TusFixture tus;
  const std::string location =
      field(tus.tus("POST", "/files/", {{"Upload-Defer-Length", "1"}}), "Location");
  REQUIRE(tus.patch(location, 0, "abc").result_int() == 204);
  CHECK(tus.patch(location, 1, "x", {{"Upload-Length", "50"}}).result_int() == 409);
  HttpConnection other(tus.server);
  const HttpResponse told = other.ask("HEAD", location, {{"Tus-Resumable", "1.0.0"}});
  CHECK(field(told, "Upload-Defer-Length") == "1");
}

TEST_CASE("partial uploads become a final one") {
  TusFixture tus;
  const std::string first = tus.create(3, {{"Upload-Concat", "partial"}});
  const std::string second = tus.create(4, {{"Upload-Concat", "partial"}});
  CHECK(field(tus.head(first), "Upload-Concat") == "partial");
  REQUIRE(tus.patch(first, 0, "abc").result_int() == 204);
  const std::string concat = "final;" + first + ' ' + second;
  const Fields request{{"Upload-Concat", "final;http://elsewhere" + first + ' ' + second},
                       {"Upload-Metadata", "filename YQ=="}};
  SECTION("that are complete") {
    REQUIRE(tus.patch(second, 0, "defg").result_int() == 204);
    const std::string whole = field(tus.tus("POST", "/files/", request), "Location");
    CHECK(tus.content(whole) == "abcdefg");
    const HttpResponse told = tus.head(whole);
    CHECK(field(told, "Upload-Concat") == concat);
    CHECK(field(told, "Upload-Offset") == "7");
    CHECK(field(told, "Upload-Metadata") == "filename YQ==");
    CHECK(tus.patch(whole, 7, "x").result_int() == 403);
  }
  SECTION("one of which is not yet") {
    const HttpResponse created = tus.tus("POST", "/files/", request);
    REQUIRE(created.result_int() == 201);
    const std::string whole = field(created, "Location");
    const HttpResponse told = tus.head(whole);
    CHECK(told.result_int() == 200);
    CHECK(field(told, "Upload-Concat") == concat);
    CHECK(field(told, "Upload-Offset").empty());
    CHECK(field(told, "Upload-Length") == "7");
    HttpConnection other(tus.server);
    CHECK(other
              .ask("PATCH", whole,
                   {{"Tus-Resumable", "1.0.0"},
                    {"Upload-Offset", "0"},
                    {"Content-Type", k_offset_octets}},
                   "x")
              .result_int() == 403);
    REQUIRE(tus.patch(second, 0, "defg").result_int() == 204);
    CHECK(field(tus.head(whole), "Upload-Offset") == "7");
    CHECK(tus.content(whole) == "abcdefg");
  }
  SECTION("of which one is gone") {
    CHECK(tus.tus("DELETE", second, {}).result_int() == 204);
    CHECK(tus.tus("POST", "/files/", request).result_int() == 404);
  }
}

TEST_CASE("all who ask for a final upload at once are told of it") {
  TusFixture tus({"--durability", "none"});
  std::vector<std::unique_ptr<HttpConnection>> clients;
  for (int i = 0; i < 6; ++i) clients.push_back(std::make_unique<HttpConnection>(tus.server));
  const std::string part = tus.create(0, {{"Upload-Concat", "partial"}}) + ' ';
  for (int round = 0; round < 20; ++round) {
    const std::string whole = create_joinable(tus, part);
    for (const auto& client : clients) client->send(head_request(whole));
    for (const auto& client : clients) CHECK(client->receive(true).result_int() == 200);
  }
}

TEST_CASE("a final upload that is deleted while it is joined is gone for good") {
  TusFixture tus({"--durability", "none"});
  HttpConnection other(tus.server);
  std::string parts;
  for (int i = 0; i < 150; ++i) parts += tus.create(0, {{"Upload-Concat", "partial"}}) + ' ';
  for (int round = 0; round < 20; ++round) {
    const std::string whole = create_joinable(tus, parts);
    other.send(head_request(whole));
    // Each round, the deletion comes a little later.
    for (int i = 0; i < round; ++i) tus.http.ask("GET", "/healthz", {});
    CHECK(tus.tus("DELETE", whole, {}).result_int() == 204);
    const unsigned status = other.receive(true).result_int();
    CHECK((status == 200 || status == 404));
    CHECK(tus.head(whole).result_int() == 404);
  }
}

TEST_CASE("a final upload whose parts are unfinished waits for no join") {
  TusFixture tus;
  const std::string complete = tus.create(0, {{"Upload-Concat", "partial"}});
  const std::string unfinished = tus.create(3, {{"Upload-Concat", "partial"}});
  PlainFile other(tus.data_file(complete));
  other.lock();  // Then the join waits.
  HttpConnection joining(tus.server);
  joining.send("POST /files/ HTTP/1.1\r\nHost: x\r\nTus-Resumable: 1.0.0\r\nUpload-Concat: final;" +
               complete + "\r\nContent-Length: 0\r\n\r\n");
  wait_for_metric(tus.http, "tidemark_operations 1");
  CHECK(tus.tus("POST", "/files/", {{"Upload-Concat", "final;" + unfinished}}).result_int() == 201);
  other.unlock();
  CHECK(joining.receive().result_int() == 201);
}

TEST_CASE("a final upload that cannot be joined is forgotten") {
  TusFixture tus({"--max-size", "10"});
  const std::string first = tus.create(6, {{"Upload-Concat", "partial"}});
  const std::string second = tus.create(4, {{"Upload-Concat", "partial"}});
  const auto finish = [&](const std::string& parts) {
    return tus.tus("POST", "/files/", {{"Upload-Concat", "final;" + parts}});
  };
  const HttpResponse created = finish(first + ' ' + second);
  REQUIRE(created.result_int() == 201);
  const std::string whole = field(created, "Location");
  const auto note = tus.folder / "data" / "unfinished" / whole.substr(7);
  REQUIRE(std::filesystem::exists(note));
  SECTION("because its client gives it up") {
    CHECK(tus.tus("DELETE", whole, {}).result_int() == 204);
    CHECK(tus.head(whole).result_int() == 404);
    CHECK(tus.head(first).result_int() == 200);
  }
  SECTION("because a part is gone") {
    CHECK(tus.tus("DELETE", second, {}).result_int() == 204);
    CHECK(tus.head(whole).result_int() == 404);
  }
  CHECK_FALSE(std::filesystem::exists(note));
  CHECK(tus.tus("DELETE", whole, {}).result_int() == 404);
}

TEST_CASE("a final upload outlives its server, with parts that come later") {
  TemporaryFolder folder;
  const auto tus = [](HttpConnection& http, std::string_view method, std::string_view target,
                      Fields fields, std::string_view body = {}) {
    fields.emplace_back("Tus-Resumable", "1.0.0");
    return http.ask(method, target, fields, body);
  };
  std::string part;
  std::string whole;
  {
    TusServer server(folder.path());
    HttpConnection http(server);
    part =
        field(tus(http, "POST", "/files/", {{"Upload-Length", "3"}, {"Upload-Concat", "partial"}}),
              "Location");
    whole = field(tus(http, "POST", "/files/", {{"Upload-Concat", "final;" + part}}), "Location");
    server.program().kill();
    server.program().wait();
  }
  TusServer server(folder.path());
  HttpConnection http(server);
  const Fields patch{{"Content-Type", k_offset_octets}, {"Upload-Offset", "0"}};
  CHECK(tus(http, "PATCH", part, patch, "abc").result_int() == 204);
  CHECK(field(tus(http, "HEAD", whole, {}), "Upload-Offset") == "3");
}

TEST_CASE("bounds of a final upload") {
  TusFixture tus({"--max-size", "10"});
  const std::string six = tus.create(6, {{"Upload-Concat", "partial"}});
  const std::string four = tus.create(4, {{"Upload-Concat", "partial"}});
  const std::string five = tus.create(5, {{"Upload-Concat", "partial"}});
  const auto finish = [&](const std::string& parts) {
    return tus.tus("POST", "/files/", {{"Upload-Concat", "final;" + parts}});
  };
  CHECK(finish(six + ' ' + four).result_int() == 201);
  const HttpResponse refused = finish(six + ' ' + five);
  CHECK(refused.result_int() == 413);
  CHECK(field(refused, "Tus-Max-Size") == "10");

  const std::string empty = tus.create(0, {{"Upload-Concat", "partial"}});
  const std::string url =
      "https://uploads.of.a.long.name.example:8443" + empty;  // As clients send.
  std::string parts;
  for (int i = 0; i < 511; ++i) parts += url + ' ';
  CHECK(finish(parts).result_int() == 201);
  CHECK(finish(parts + url).result_int() == 201);
  CHECK(finish(parts + url + ' ' + url).result_int() == 400);
}

TEST_CASE("a final upload that is unfinished expires, and says when") {
  TusFixture tus({"--expire-after", "1h"});
  const std::string part = tus.create(3, {{"Upload-Concat", "partial"}});
  const HttpResponse created = tus.tus("POST", "/files/", {{"Upload-Concat", "final;" + part}});
  CHECK(field(created, "Upload-Expires").ends_with(" GMT"));
  const std::string location = field(created, "Location");
  CHECK(field(tus.head(location), "Upload-Expires") == field(created, "Upload-Expires"));
  REQUIRE(tus.patch(part, 0, "abc").result_int() == 204);
  CHECK(field(tus.head(location), "Upload-Expires").empty());
  CHECK(tus.content(location) == "abc");
}

TEST_CASE("a final upload that has expired is joined no more") {
  TusFixture tus({"--expire-after", "1h"});
  const std::string whole = create_joinable(tus, "");
  std::filesystem::last_write_time(
      tus.folder / "data" / "unfinished" / whole.substr(7),
      std::filesystem::file_time_type::clock::now() - std::chrono::minutes(61));
  CHECK(tus.head(whole).result_int() == 410);
  CHECK(tus.tus("GET", whole, {}).result_int() == 410);
}

TEST_CASE("bounds of the server are told from a full disk") {
  TusFixture tus({"--quota", "100"});
  const std::string location = tus.create(60);
  REQUIRE(!location.empty());
  CHECK(tus.tus("POST", "/files/", {{"Upload-Length", "41"}}).result_int() == 507);
  CHECK(tus.tus("POST", "/files/", {{"Upload-Length", "40"}}).result_int() == 201);
  // What tells no length would be bounded by nothing.
  CHECK(tus.tus("POST", "/files/", {{"Upload-Defer-Length", "1"}}).result_int() == 400);
  CHECK(field(tus.tus("OPTIONS", "/files/", {}), "Tus-Extension").find("defer") ==
        std::string::npos);
}
