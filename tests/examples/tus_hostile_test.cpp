// Clients that mean no good, and a healthy one beside them.

#include <algorithm>
#include <atomic>
#include <chrono>
#include <fcntl.h>
#include <fstream>
#include <functional>
#include <memory>
#include <sched.h>
#include <stop_token>
#include <string>
#include <string_view>
#include <sys/resource.h>
#include <sys/stat.h>
#include <thread>
#include <vector>

#include "../catch.hpp"
#include "../sanitizers.hpp"
#include "../storage/foreign_program.hpp"
#include "tus_fixture.hpp"

using namespace tidemark;
using namespace tidemark::test;

namespace {

/// The 99th percentile of the time of 300 PATCHes of 1 KiB.
std::chrono::nanoseconds healthy_p99(TusFixture& tus) {
  constexpr std::size_t k_patches = 300;
  const std::string location = tus.create(k_patches * 1024);
  const std::string piece(1024, 'x');
  std::vector<std::chrono::nanoseconds> times;
  for (std::size_t i = 0; i < k_patches; ++i) {
    const auto began = std::chrono::steady_clock::now();
    const HttpResponse answer = tus.patch(location, i * 1024, piece);
    times.push_back(std::chrono::steady_clock::now() - began);
    REQUIRE(answer.result_int() == 204);
  }
  std::sort(times.begin(), times.end());
  return times[times.size() * 99 / 100];
}

/// Whether `tus` serves a healthy client, while what `begin_attack` gives lives, as `calm` does
/// without. Both are asked in turns, since the machine may be busy; one good round of five proves
/// it, since what else the machine does makes a round slower, never faster. A round in which the
/// attack is not in force to its end proves nothing.
template <class BeginAttack>
bool is_served_well(TusFixture& tus, TusFixture& calm, const BeginAttack& begin_attack) {
  for (int round = 0; round < 5; ++round) {
    const std::chrono::nanoseconds usual = healthy_p99(calm);
    const auto attack = begin_attack();
    const std::chrono::nanoseconds attacked = healthy_p99(tus);
    if (k_address_sanitizer || k_thread_sanitizer) return true;  // Neither is as it would be.
    if (attack.is_in_force() && attacked <= 2 * usual) return true;
  }
  return false;
}

std::size_t peak_memory_bytes(const TusServer& server) {
  std::ifstream status("/proc/" + std::to_string(server.pid()) + "/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmHWM:")) return std::stoul(line.substr(6)) * 1024;
  }
  return 0;
}

/// A client that connects, sends `text`, reads until the server has had enough of it, and begins
/// anew, 200 times a second at most, until this is destroyed.
class Attack {
 public:
  Attack(const TusServer& server, std::string text)
      : thread_([this, &server, text = std::move(text)](const std::stop_token& stop) {
          // It has a machine of its own: its cycles are not to be missed by the server.
          const sched_param none{};
          ::sched_setscheduler(0, SCHED_IDLE, &none);
          while (!stop.stop_requested()) {
            HttpConnection http(server);
            boost::system::error_code cut_off;
            boost::asio::write(http.socket(), boost::asio::buffer(text), cut_off);
            if (http.has_ended()) ++times_;  // Reads until it has.
            ::usleep(5'000);
          }
        }) {}

  /// It came to more than one try.
  bool is_in_force() const { return times_ > 1; }

 private:
  std::atomic<int> times_ = 0;
  std::jthread thread_;
};

/// Clients that connect, send what `text` gives each, and hang until this is destroyed.
class HangingClients {
 public:
  HangingClients(TusFixture& tus, std::size_t count, const std::function<std::string()>& text)
      : tus_(tus) {
    rlimit limit{};
    REQUIRE(::getrlimit(RLIMIT_NOFILE, &limit) == 0);
    limit.rlim_cur = limit.rlim_max;
    REQUIRE(::setrlimit(RLIMIT_NOFILE, &limit) == 0);
    for (std::size_t i = 0; i < count; ++i) {
      clients_.push_back(std::make_unique<HttpConnection>(tus.server));
      clients_.back()->send(text());
    }
  }

  /// None was cut off.
  bool is_in_force() const {
    const std::string metrics = tus_.http.ask("GET", "/metrics", {}).body();
    constexpr std::string_view k_open = "\ntus_connections ";
    return std::stoul(metrics.substr(metrics.find(k_open) + k_open.size())) > clients_.size();
  }

 private:
  TusFixture& tus_;
  std::vector<std::unique_ptr<HttpConnection>> clients_;
};

}  // namespace

TEST_CASE("a healthy client is served beside 2,000 others that hang") {
  TusFixture tus;
  TusFixture calm;
  std::function<std::string()> text = [] { return std::string(); };
  SECTION("idle") {}
  SECTION("in a header") {
    text = [] { return "GET / HTTP/1.1\r\nHost: x\r\nX-Slow: "; };
  }
  SECTION("in a body") {
    text = [&] {
      return patch_header(tus.create(1'000'000), 0, "Content-Length: 1000000") + "abc";
    };
  }
  SECTION("in a chunk") {
    text = [&] {
      return patch_header(tus.create(1'000'000), 0, "Transfer-Encoding: chunked") + "10000\r\nabc";
    };
  }
  CHECK(is_served_well(tus, calm, [&] { return HangingClients(tus, 2'000, text); }));
  if (k_address_sanitizer || k_thread_sanitizer) return;  // Their allocators take more.
  CHECK(peak_memory_bytes(tus.server) < std::size_t{128} << 20);
}

TEST_CASE("a healthy client is served beside one that never tires of nonsense") {
  TusFixture tus;
  TusFixture calm;
  const std::string chunked = patch_header(tus.create(1'000'000), 0, "Transfer-Encoding: chunked");
  const std::string last = "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
  std::string text;
  SECTION("pipelining") {
    for (int i = 0; i < 50; ++i) text += "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    text += last;
  }
  SECTION("endless headers") {
    text = "GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: " + std::string(1 << 18, 'x');
  }
  SECTION("bad chunk sizes") {
    text = chunked + "fffffffffffffffffffff\r\nabc";
  }
  SECTION("endless chunk extensions") {
    text = chunked + "3;" + std::string(1 << 18, 'x');
  }
  SECTION("Content-Length and Transfer-Encoding") {
    text = patch_header(tus.create(3), 0, "Transfer-Encoding: chunked\r\nContent-Length: 3");
  }
  SECTION("huge and negative numbers") {
    text = patch_header(tus.create(3), UINT64_MAX, "Upload-Length: -1\r\nContent-Length: 0") + last;
  }
  SECTION("ids that try to climb") {
    text =
        "GET /files/../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n"
        "DELETE /files/%2e%2e%2fuploads.db HTTP/1.1\r\nHost: x\r\nTus-Resumable: 1.0.0\r\n\r\n" +
        last;
  }
  SECTION("uploads whose metadata would write headers") {
    text =
        "POST /files/ HTTP/1.1\r\nHost: x\r\nTus-Resumable: 1.0.0\r\nUpload-Length: 1\r\n"
        "Upload-Metadata: filename YQ0KWC1FdmlsOiAx\r\nContent-Length: 0\r\n\r\n" +
        last;
  }
  CHECK(is_served_well(tus, calm, [&] { return Attack(tus.server, text); }));
  if (k_address_sanitizer || k_thread_sanitizer) return;  // Their allocators take more.
  CHECK(peak_memory_bytes(tus.server) < std::size_t{64} << 20);
}

TEST_CASE("a long body costs no more memory than a short one") {
  // With their allocators it does.
  if (k_address_sanitizer || k_thread_sanitizer) return;
  TusFixture tus;
  const auto chunked = GENERATE(false, true);
  CAPTURE(chunked);
  const std::string mebibyte(1 << 20, 'x');
  const std::string piece = chunked ? chunk(mebibyte) : mebibyte;
  const auto send = [&](std::size_t mebibytes) {
    const std::size_t bytes = mebibytes << 20;
    const std::string location = tus.create(bytes);
    tus.http.send(patch_header(
        location, 0,
        chunked ? "Transfer-Encoding: chunked" : "Content-Length: " + std::to_string(bytes)));
    for (std::size_t i = 0; i < mebibytes; ++i) tus.http.send(piece);
    if (chunked) tus.http.send("0\r\n\r\n");
    CHECK(field(tus.http.receive(), "Upload-Offset") == std::to_string(bytes));
    return peak_memory_bytes(tus.server);
  };
  const std::size_t usual = send(1);
  CHECK(send(1024) <= usual + (std::size_t{8} << 20));
}

TEST_CASE("a header that takes too long or is too long is cut off") {
  TusFixture tus({"--idle-timeout", "1"});
  HttpConnection http(tus.server);
  SECTION("never ended") {
    http.send("GET /healthz HTTP/1.1\r\nHost: x\r\n");
    CHECK(http.has_ended());
  }
  SECTION("never begun") {
    CHECK(http.has_ended());
  }
  SECTION("endless") {
    http.send("GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: " + std::string(72 << 10, 'x'));
    CHECK(http.receive().result_int() == 431);
    CHECK(http.has_ended());
  }
  SECTION("at the bound of its length") {
    std::string text = "GET /healthz HTTP/1.1\r\nHost: x\r\n";
    const auto more = GENERATE(as<std::size_t>{}, 0, 1, 2);
    if (GENERATE(false, true)) {
      for (int i = 0; i < 60; ++i) text += "X-Many: " + std::string(1000, 'x') + "\r\n";
    }
    text += "X: " + std::string((64 << 10) - 1 + more - text.size() - 7, 'x') + "\r\n\r\n";
    http.send(text);
    CHECK(http.receive().result_int() == (more < 2 ? 200 : 431));
  }
  SECTION("at the bound of its fields") {
    std::string text = "GET /healthz HTTP/1.1\r\nHost: x\r\n";
    const auto fields = GENERATE(99, 100, 101);
    for (int i = 1; i < fields; ++i) text += "A:\r\n";
    http.send(text + "\r\n");
    CHECK(http.receive().result_int() == (fields <= 100 ? 200 : 431));
  }
  CHECK(HttpConnection(tus.server).ask("GET", "/healthz", {}).result_int() == 200);
}

TEST_CASE("a header is cut off at its bound, however it arrives") {
  TusFixture tus;
  HttpConnection http(tus.server);
  http.socket().set_option(boost::asio::ip::tcp::no_delay(true));
  // Each read of 1 KiB would end behind the first byte of a field, so that Beast keeps all others.
  std::string text = "GET /healthz HTTP/1.1\r\nHost: x\r\nX: ";
  text += std::string(1023 - text.size() - 2, 'x') + "\r\n";
  const std::string one = GENERATE(false, true) ? "A:bcdefgh\r\n"  // 93 of them.
                                                : "A:" + std::string(1019, 'b') + "\r\n";
  std::string fields;
  while (fields.size() < 1023) fields += one;
  const auto began = std::chrono::steady_clock::now();
  http.send(text + 'A');
  std::size_t sent = text.size() + 1;
  // Fewer long ones than 100.
  for (; http.socket().available() == 0 && sent < (80 << 10); sent += fields.size()) {
    http.send(fields.substr(1) + 'A');
    ::usleep(200);  // It is coming piece by piece that is tested.
  }
  CHECK(http.receive().result_int() == 431);
  CHECK(http.has_ended());
  // Not as one that takes too long, which is 10 s.
  CHECK(std::chrono::steady_clock::now() - began < std::chrono::seconds(8));
}

TEST_CASE("a chunked body may come byte by byte") {
  TusFixture tus;
  const std::string location = tus.create(3);
  const bool empty = GENERATE(false, true);
  HttpConnection http(tus.server);
  http.send(patch_header(location, 0, "Transfer-Encoding: chunked"));
  for (const char byte : std::string(empty ? "" : "3\r\nabc\r\n") + "0\r\n\r\n") {
    http.send({&byte, 1});
    ::usleep(60'000);  // It is being slow that is tested: longer than a piece is held.
  }
  CHECK(field(http.receive(), "Upload-Offset") == (empty ? "0" : "3"));
}

TEST_CASE("a trailer is cut off at its bound") {
  TusFixture tus;
  const auto bytes = GENERATE(as<std::size_t>{}, 60'000, 65'000, 65'534, 70'000, 1'000'000);
  CAPTURE(bytes);
  const bool at_once = GENERATE(false, true);
  HttpConnection http(tus.server);
  std::string header = patch_header(tus.create(3), 0, "Transfer-Encoding: chunked");
  header += chunk("abc") + "0\r\n";
  const std::string trailer = "X: " + std::string(bytes, 'x') + "\r\n\r\n";
  if (at_once) {
    http.send(header + trailer);
  } else {
    http.send(header);
    http.send(trailer);
  }
  CHECK(http.receive().result_int() == (bytes <= 65'000 ? 204 : 400));
  CHECK(tus.http.ask("GET", "/healthz", {}).result_int() == 200);
}

TEST_CASE("a body that stalls is cut off and what arrived is kept") {
  TusFixture tus({"--idle-timeout", "1"});
  const std::string location = tus.create(10);
  HttpConnection http(tus.server);
  http.send(patch_header(location, 0, "Content-Length: 10") + "abc");
  CHECK(http.receive().result_int() == 408);
  CHECK(http.has_ended());
  HttpConnection other(tus.server);
  CHECK(field(other.ask("HEAD", location, {{"Tus-Resumable", "1.0.0"}}), "Upload-Offset") == "3");
}

TEST_CASE("a body that trickles is cut off and what arrived is kept") {
  TusFixture tus({"--idle-timeout", "1"});
  const std::string location = tus.create(100'000);
  HttpConnection client(tus.server);
  client.send(patch_header(location, 0, "Content-Length: 100000"));
  std::uint64_t sent = 0;
  for (; client.socket().available() == 0; ++sent) {
    client.send("x");
    ::usleep(100'000);  // It is being slow that is tested.
  }
  CHECK(client.receive().result_int() == 408);
  HttpConnection other(tus.server);
  const HttpResponse told = other.ask("HEAD", location, {{"Tus-Resumable", "1.0.0"}});
  const std::uint64_t offset = std::stoull(field(told, "Upload-Offset"));
  CHECK(offset > 0);
  CHECK(offset <= sent);
}

TEST_CASE("a client is not cut off for what the server waited") {
  TusFixture tus({"--idle-timeout", "1"});
  const std::string location = tus.create(3);
  PlainFile other(tus.data_file(location));
  other.lock();
  HttpConnection client(tus.server);
  client.send(patch_header(location, 0, "Expect: 100-continue\r\nContent-Length: 3"));
  for (int i = 0; i < 2; ++i) CHECK(HttpConnection(tus.server).has_ended());  // 1 s each.
  const auto began = std::chrono::steady_clock::now();
  other.unlock();
  CHECK(client.receive().result_int() == 100);
  CHECK(client.receive().result_int() == 408);
  CHECK(std::chrono::steady_clock::now() - began >= std::chrono::seconds(1));
}

TEST_CASE("a body of nothing but the beginnings of chunks is cut off") {
  TusFixture tus({"--idle-timeout", "1"});
  HttpConnection client(tus.server);
  client.send(patch_header(tus.create(3), 0, "Transfer-Encoding: chunked") + "3;x");
  while (client.socket().available() == 0) {
    client.send("x");
    ::usleep(100'000);  // It is being slow that is tested.
  }
  CHECK(client.receive().result_int() == 408);
}

TEST_CASE("what is no HTTP is refused") {
  TusFixture tus;
  const std::string location = tus.create(10);
  const std::string texts[] = {
      "nonsense\r\n\r\n",
      std::string(100, '\0'),
      "GET / HTTP/9.9\r\n\r\n",
      "GET /\x01 HTTP/1.1\r\n\r\n",
      "GET / HTTP/1.1\r\nBad Name: x\r\n\r\n",
      patch_header(location, 0, "Content-Length: 3\r\nTransfer-Encoding: chunked"),
      patch_header(location, 0, "Transfer-Encoding: chunked\r\nContent-Length: 3"),
      patch_header(location, 0, "Content-Length: 3\r\nContent-Length: 4"),
      patch_header(location, 0, "Content-Length: -3"),
      patch_header(location, 0, "Content-Length: 99999999999999999999999"),
      patch_header(location, 0, "Transfer-Encoding: chunked") + "-1\r\nabc\r\n0\r\n\r\n",
      patch_header(location, 0, "Transfer-Encoding: chunked") +
          "fffffffffffffffffffff\r\nabc\r\n0\r\n\r\n",
      patch_header(location, 0, "Transfer-Encoding: chunked") + "3\r\nabcdef\r\n0\r\n\r\n"};
  const std::string& text = texts[GENERATE(range(0, 13))];
  INFO(text);
  HttpConnection http(tus.server);
  http.send(text);
  CHECK(http.receive().result_int() == 400);
  CHECK(http.has_ended());
  CHECK(tus.offset(location) <= 3);
}

TEST_CASE("a coding that the server does not know ends the connection") {
  TusFixture tus;
  const std::string location = tus.create(10);
  for (const char* const coding : {"gzip", "gzip, chunked", "identity"}) {
    INFO(coding);
    HttpConnection http(tus.server);
    // What follows must not be taken for another request.
    http.send(patch_header(location, 0, "Transfer-Encoding: " + std::string(coding)) +
              "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
    const HttpResponse answer = http.receive();
    CHECK((answer.result_int() == 501 || answer.result_int() == 400));
    CHECK(field(answer, "Connection") == "close");
    CHECK(http.has_ended());
  }
  CHECK(tus.offset(location) == 0);
}

TEST_CASE("a target may name the host, and a request must, once") {
  TusFixture tus;
  CHECK(tus.http.ask("GET", "http://x/healthz", {}).body() == "ok\n");
  CHECK(tus.http.ask("GET", "/healthz", {{"Host", "y"}}).result_int() == 400);
  for (const char* const what : {"GET /healthz", "OPTIONS *"}) {
    tus.http.send(std::string(what) + " HTTP/1.1\r\n\r\n");
    CHECK(tus.http.receive().result_int() == 400);
  }
  tus.http.send("GET /healthz HTTP/1.0\r\n\r\n");
  CHECK(tus.http.receive().result_int() == 200);
}

TEST_CASE("a log whose reader has gone stops no server") {
  TemporaryFolder folder;
  const auto server = TusServer::under(folder.path(), "/bin/bash",
                                       {"-c", R"(exec "$0" "$@" 2> >(exec true); exit 1)"});
  HttpConnection http(server);
  for (int i = 0; i < 100; ++i) {
    REQUIRE(http.ask("GET", "/files/unknown", {}).result_int() == 404);  // Each is a line.
  }
}

TEST_CASE("a log that nobody reads stops no server, whatever is asked") {
  TemporaryFolder folder;
  const std::string log = folder / "log";
  REQUIRE(::mkfifo(log.c_str(), 0600) == 0);
  const int reader = ::open(log.c_str(), O_RDWR | O_NONBLOCK | O_CLOEXEC);
  REQUIRE(::fcntl(reader, F_SETPIPE_SZ, 4096) == 4096);
  const auto server =
      TusServer::under(folder.path(), "/bin/bash", {"-c", R"(exec "$0" "$@" 2> log)"});
  const auto told = [&] {
    std::string text(4096, ' ');
    const ssize_t size = ::read(reader, text.data(), text.size());
    text.resize(static_cast<std::size_t>(std::max<ssize_t>(size, 0)));
    return text;
  };
  told();
  HttpConnection http(server);
  http.send(std::string(20'000, 'M') + " / HTTP/1.1\r\nHost: x\r\n\r\n");
  CHECK(http.receive().result_int() == 405);
  CHECK(told().find("\"method\":\"MMMMMMMMMMMMMMMMMMMM\",\"target\":\"/\"") != std::string::npos);
  CHECK(http.ask("GET", "/\xff\xc3\"" + std::string(20'000, '"'), {}).result_int() == 404);
  CHECK(told().find(R"("target":"/??\"\")") != std::string::npos);
  ::close(reader);
}

TEST_CASE("metadata cannot write headers") {
  TusFixture tus;
  // filename: a CR LF X-Evil: 1; filetype: text/html.
  const std::string location =
      tus.create(1, {{"Upload-Metadata", "filename YQ0KWC1FdmlsOiAx,filetype dGV4dC9odG1s"}});
  REQUIRE(tus.patch(location, 0, "x").result_int() == 204);
  const HttpResponse content = tus.http.ask("GET", location, {});
  CHECK(field(content, "X-Evil").empty());
  CHECK(field(content, "Content-Disposition") ==
        "attachment; filename*=UTF-8''a%0D%0AX-Evil%3A%201");
  CHECK(field(content, "Content-Type") == "application/octet-stream");
  CHECK(field(content, "Content-Security-Policy").starts_with("sandbox"));
}

TEST_CASE("connections above their bound are refused") {
  TusFixture tus({"--max-connections", "3"});  // The fixture's is the first.
  CHECK(tus.http.ask("GET", "/healthz", {}).result_int() == 200);
  HttpConnection second(tus.server);
  HttpConnection third(tus.server);
  CHECK(second.ask("GET", "/healthz", {}).result_int() == 200);
  CHECK(third.ask("GET", "/healthz", {}).result_int() == 200);
  HttpConnection fourth(tus.server);
  const HttpResponse refusal = fourth.receive();
  CHECK(refusal.result_int() == 503);
  CHECK(field(refusal, "Tus-Resumable") == "1.0.0");
  CHECK(fourth.has_ended());
}

TEST_CASE("no more connections are accepted than there are descriptors for") {
  TemporaryFolder folder;
  const std::string limit = "--nofile=" + std::to_string(64 + 3 + 2 * 5 + 1);  // 3 are for a join.
  const auto server = TusServer::under(folder.path(), "/usr/bin/prlimit", {limit});
  std::vector<std::unique_ptr<HttpConnection>> accepted;
  for (int i = 0; i < 5; ++i) {
    accepted.push_back(std::make_unique<HttpConnection>(server));
    CHECK(accepted.back()->ask("GET", "/healthz", {}).result_int() == 200);
  }
  HttpConnection sixth(server);
  CHECK(sixth.receive().result_int() == 503);
  const HttpResponse created = accepted.back()->ask(
      "POST", "/files/", {{"Tus-Resumable", "1.0.0"}, {"Upload-Length", "10"}});
  CHECK(created.result_int() == 201);
}
