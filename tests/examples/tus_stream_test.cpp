// The tus server while bodies arrive: what is kept of them, who has an upload, and how it all ends.

#include <chrono>
#include <csignal>
#include <functional>
#include <memory>

#include "../catch.hpp"
#include "../sanitizers.hpp"
#include "../storage/foreign_program.hpp"
#include "tus_fixture.hpp"

using namespace tidemark;
using namespace tidemark::test;

namespace {

/// A PATCH of `length` bytes that are not all sent yet. Returns once the server has the first.
std::unique_ptr<HttpConnection> begin_patch(TusFixture& tus, std::string_view location,
                                            std::size_t length, std::string_view first) {
  auto http = std::make_unique<HttpConnection>(tus.server);
  http->send(patch_header(location, 0, "Content-Length: " + std::to_string(length)));
  http->send(first);
  // Without a checksum, what waits for more bytes is committed after a second.
  wait_until([&] { return tus.row(location) == first.size(); });
  return http;
}

/// Sends SIGTERM, does `meanwhile`, and waits for the end: the server's promise is 5 s, its
/// storage's patience 30.
int leave_in_time(
    TusServer& server, const std::function<void()>& meanwhile = [] {}) {
  const auto began = std::chrono::steady_clock::now();
  ::kill(server.pid(), SIGTERM);
  meanwhile();
  const int exit_code = server.program().wait().exit_code;
  CHECK(std::chrono::steady_clock::now() - began < std::chrono::seconds(8));
  return exit_code;
}

/// A PATCH of ten bytes of which nothing is left to do but the commit, and another program that has
/// the database.
struct StuckCommit {
  StuckCommit() : other(tus.folder / "data") {
    const std::string location = tus.create(10);
    other.exec("BEGIN IMMEDIATE");
    tus.http.send(patch_header(location, 0, "Content-Length: 10") + "0123456789");
    wait_until([&] { return std::filesystem::file_size(tus.data_file(location)) == 10; });
  }

  TusFixture tus;
  ForeignProgram other;
};

bool is_refused(const TusServer& server) {
  try {
    HttpConnection http(server);
    return false;
  } catch (const boost::system::system_error&) {
    return true;
  }
}

}  // namespace

TEST_CASE("a PATCH that breaks off keeps what arrived") {
  TusFixture tus;
  const std::string bytes = test_text(2, 300'000);
  const std::string location = tus.create(300'000);
  const auto how = GENERATE(as<std::string>{}, "closed", "reset", "chunked", "bad chunk");
  INFO(how);
  {
    HttpConnection client(tus.server);
    const std::string sent = bytes.substr(0, 200'001);
    if (how == "closed" || how == "reset") {
      client.send(patch_header(location, 0, "Content-Length: 300000") + sent);
    } else {
      client.send(patch_header(location, 0, "Transfer-Encoding: chunked") + chunk(sent));
    }
    if (how == "bad chunk") {
      client.send("zz\r\nabc\r\n");
      CHECK(client.receive().result_int() == 400);
      CHECK(client.has_ended());
    }
    if (how == "reset") {
      // A reset drops what the server has not read yet: it is sent when all has arrived.
      wait_until([&] { return tus.row(location) == 200'001; });
      client.socket().set_option(boost::asio::socket_base::linger(true, 0));
    }
  }
  wait_until([&] { return tus.row(location) == 200'001; });
  CHECK(tus.offset(location) == 200'001);
  CHECK(tus.patch(location, 200'001, bytes.substr(200'001)).result_int() == 204);
  CHECK(tus.content(location) == bytes);
}

TEST_CASE("a client that stalls and then goes away is noticed") {
  TusFixture tus;
  const std::string location = tus.create(10);
  auto client = begin_patch(tus, location, 10, "abc");
  client.reset();
  wait_for_metric(tus.http, "tus_connections 1");
  CHECK(tus.offset(location) == 3);
}

TEST_CASE("a PATCH with a checksum that breaks off keeps nothing") {
  TusFixture tus;
  const std::string location = tus.create(100);
  {
    HttpConnection client(tus.server);
    client.send(patch_header(location, 0,
                             "Upload-Checksum: md5 kAFQmDzST7DWlj99KOF/cg==\r\n"
                             "Content-Length: 100"));
    client.send("abc");
  }
  CHECK(tus.offset(location) == 0);
  CHECK(tus.row(location) == 0);
}

TEST_CASE("HEAD settles the writer whose connection is half dead") {
  TusFixture tus;
  const std::string location = tus.create(10);
  auto half_dead = begin_patch(tus, location, 10, "abc");
  half_dead->send("de");
  const auto began = std::chrono::steady_clock::now();
  const std::uint64_t offset = tus.offset(location);
  const std::string rest = std::string("abcdefghij").substr(offset);
  CHECK(tus.patch(location, offset, rest).result_int() == 204);
  // Not a timed test of speed: without the take-over this is the idle time-out, a minute.
  CHECK(std::chrono::steady_clock::now() - began < std::chrono::seconds(30));
  CHECK(half_dead->receive().result_int() == 409);
  CHECK(half_dead->has_ended());
  CHECK(tus.content(location) == "abcdefghij");
}

TEST_CASE("a PATCH that comes late does not end the present one") {
  TusFixture tus;
  const std::string location = tus.create(10);
  auto client = begin_patch(tus, location, 10, "abc");
  Fields fields{{"Upload-Length", "10"}};  // Also where the request tells the length once more.
  if (GENERATE(true, false)) fields.clear();
  CHECK(tus.patch(location, 2, "x", fields).result_int() == 409);
  client->send("defghij");
  CHECK(client->receive().result_int() == 204);
  CHECK(client->ask("GET", location, {}).body() == "abcdefghij");
}

TEST_CASE("an upload that another process writes is locked") {
  TusFixture tus;
  const std::string location = tus.create(10);
  PlainFile other(tus.data_file(location));
  other.lock();
  CHECK(tus.patch(location, 0, "abc").result_int() == 423);
  other.unlock();
  HttpConnection next(tus.server);
  CHECK(next.ask("HEAD", location, {{"Tus-Resumable", "1.0.0"}}).result_int() == 200);
}

TEST_CASE("a PATCH that is taken over while it commits is told at once") {
  TusFixture tus;
  const std::size_t committed = std::size_t{8} << 20;  // So many bytes are committed on the way.
  const std::string location = tus.create(committed + 1);
  ForeignProgram other(tus.folder / "data");
  other.exec("BEGIN IMMEDIATE");
  HttpConnection half_dead(tus.server);
  half_dead.send(patch_header(location, 0, "Content-Length: " + std::to_string(committed + 1)));
  half_dead.send(std::string(committed, 'x'));
  wait_until([&] { return std::filesystem::file_size(tus.data_file(location)) == committed; });
  const auto began = std::chrono::steady_clock::now();
  tus.http.send(head_request(location));
  HttpConnection third(tus.server);
  wait_for_metric(third, "tidemark_take_overs_total 1");
  other.exec("ROLLBACK");
  // 503: this test took longer than the server's patience with a locked database.
  const unsigned status = half_dead.receive().result_int();
  CHECK((status == 409 || status == 503));
  // It would be the idle time-out, a minute.
  CHECK(std::chrono::steady_clock::now() - began < std::chrono::seconds(30));
}

TEST_CASE("DELETE ends the writer") {
  TusFixture tus;
  const std::string location = tus.create(10);
  auto client = begin_patch(tus, location, 10, "abc");
  CHECK(tus.tus("DELETE", location, {}).result_int() == 204);
  CHECK(client->receive().result_int() == 409);
  CHECK(tus.head(location).result_int() == 404);
  CHECK(!std::filesystem::exists(tus.data_file(location)));
}

TEST_CASE("a client may wait to be asked for the body") {
  TusFixture tus;
  const std::string location = tus.create(3);
  tus.http.send(patch_header(location, 0, "Expect: 100-continue\r\nContent-Length: 3"));
  CHECK(tus.http.receive().result_int() == 100);
  tus.http.send("abc");
  CHECK(tus.http.receive().result_int() == 204);
  tus.http.send(patch_header(location, 7, "Expect: 100-continue\r\nContent-Length: 3"));
  CHECK(tus.http.receive().result_int() == 409);  // Before it sent a byte.
}

TEST_CASE("a client of HTTP/1.0 is asked for nothing, and does not stay") {
  TusFixture tus;
  const std::string location = tus.create(3);
  std::string header = patch_header(
      location, 0, "Connection: keep-alive\r\nExpect: 100-continue\r\nContent-Length: 3");
  header.replace(header.find("1.1"), 3, "1.0");
  HttpConnection client(tus.server);
  client.send(header + "ab");
  wait_until([&] { return tus.row(location) == 2; });  // The server waits for more.
  client.send("c");
  const HttpResponse answer = client.receive();
  CHECK(answer.result_int() == 204);
  CHECK(field(answer, "Connection") == "close");
  CHECK(client.has_ended());
}

TEST_CASE("requests may be sent without waiting for answers") {
  TusFixture tus;
  const std::string location = tus.create(6);
  tus.http.send(patch_header(location, 0, "Content-Length: 3") + "abc" +
                patch_header(location, 3, "Transfer-Encoding: chunked") + chunk("d") + chunk("ef") +
                "0\r\n\r\nGET " + location + " HTTP/1.1\r\nHost: x\r\n\r\n");
  CHECK(field(tus.http.receive(), "Upload-Offset") == "3");
  CHECK(field(tus.http.receive(), "Upload-Offset") == "6");
  CHECK(tus.http.receive().body() == "abcdef");
}

TEST_CASE("a client that writes all before it reads hears why it was refused") {
  TusFixture tus;
  constexpr std::size_t k_body = std::size_t{24} << 20;
  const std::string location = tus.create(k_body);
  CHECK(tus.patch(location, 1, std::string(k_body, 'x')).result_int() == 409);
  CHECK(tus.http.has_ended());
}

TEST_CASE("a body that is longer than the upload is refused") {
  TusFixture tus;
  const std::string location = tus.create(100'000);
  HttpConnection client(tus.server);
  client.send(patch_header(location, 0, "Transfer-Encoding: chunked"));
  client.send(chunk(std::string(100'001, 'x')) + "0\r\n\r\n");
  CHECK(client.receive().result_int() == 413);
  CHECK(tus.offset(location) <= 100'000);
}

TEST_CASE("SIGTERM lets requests commit and ends the server") {
  TusFixture tus;
  const std::string location = tus.create(100'000);
  auto client = begin_patch(tus, location, 100'000, "abc");
  HttpConnection idle(tus.server);
  const int exit_code = leave_in_time(tus.server, [&] {
    // To its last moment, so that something is always on its way.
    while (client->socket().available() == 0) {
      client->send("x");
      ::usleep(1000);
    }
    CHECK(client->receive().result_int() == 503);
  });
  CHECK(exit_code == 0);
  CHECK(idle.has_ended());
  CHECK(tus.row(location) > 3);
  CHECK(tus.row(location) == std::filesystem::file_size(tus.data_file(location)));
}

TEST_CASE("SIGTERM ends a server that waits for a locked database") {
  StuckCommit stuck;
  CHECK(leave_in_time(stuck.tus.server) == 0);
  stuck.other.exec("ROLLBACK");
}

TEST_CASE("a server that leaves accepts nobody") {
  StuckCommit stuck;
  TusServer& server = stuck.tus.server;
  ::kill(server.pid(), SIGTERM);
  wait_until([&] { return is_refused(server); });
  CHECK(!server.program().has_ended());  // The commit keeps it.
  stuck.other.exec("ROLLBACK");
  CHECK(stuck.tus.http.receive().result_int() == 204);
  CHECK(server.program().wait().exit_code == 0);
}

TEST_CASE("SIGTERM ends a server whose disk does not end a sync") {
  // A ring's syncs are the kernel's own, and a sanitizer wants to be loaded first.
  if (driver_kind() != DriverKind::threads || k_address_sanitizer || k_thread_sanitizer) return;
  TemporaryFolder folder;
  const std::string stuck = std::string(TIDEMARK_TEST_PROGRAMS_DIR) + "/stuck_sync.so";
  auto server = TusServer::under(folder.path(), "/usr/bin/env", {"LD_PRELOAD=" + stuck});
  HttpConnection http(server);
  const Fields length{{"Tus-Resumable", "1.0.0"}, {"Upload-Length", "777777"}};
  const std::string location = field(http.ask("POST", "/files/", length), "Location");
  http.send(patch_header(location, 0, "Content-Length: 777777") + std::string(777'777, 'x'));
  wait_until([&] {
    return std::filesystem::file_size(folder / "data" / "uploads" / location.substr(7)) == 777'777;
  });
  CHECK(leave_in_time(server) == -1);
}

TEST_CASE("a server that was killed goes on where it was") {
  TemporaryFolder folder;
  const std::string bytes = test_text(3, 20'000'000);
  std::string location;
  {
    TusServer server(folder.path());
    HttpConnection http(server);
    location = field(
        http.ask("POST", "/files/", {{"Tus-Resumable", "1.0.0"}, {"Upload-Length", "20000000"}}),
        "Location");
    http.send(patch_header(location, 0, "Content-Length: 20000000"));
    http.send(std::string_view(bytes).substr(0, 15'000'000));
    // A long body is committed on the way.
    wait_until([&] {
      return row_offset(folder / "data" / "uploads.db", location.substr(7)).value_or(0) > 0;
    });
    server.program().kill();
    server.program().wait();
  }
  TusServer server(folder.path());
  HttpConnection http(server);
  const HttpResponse told = http.ask("HEAD", location, {{"Tus-Resumable", "1.0.0"}});
  const std::uint64_t offset = std::stoull(field(told, "Upload-Offset"));
  CHECK(offset > 0);
  CHECK(http.ask("PATCH", location,
                 {{"Tus-Resumable", "1.0.0"},
                  {"Content-Type", k_offset_octets},
                  {"Upload-Offset", std::to_string(offset)}},
                 std::string_view(bytes).substr(offset))
            .result_int() == 204);
  CHECK(http.ask("GET", location, {}).body() == bytes);
}
