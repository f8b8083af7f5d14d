// tus_upload with servers that fail, err and lie: what it asks for then, and when it gives up.

#include <algorithm>
#include <array>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <netinet/in.h>
#include <optional>
#include <string>
#include <string_view>
#include <sys/socket.h>
#include <system_error>
#include <unistd.h>
#include <utility>
#include <vector>

#include "../catch.hpp"
#include "tus_upload_fixture.hpp"
#include "tus_upload_scripted_server.hpp"

namespace tidemark::test {
namespace {

namespace http = boost::beast::http;
using Catch::Matchers::Contains;
using Catch::Matchers::StartsWith;
using Request = ScriptedServer::Request;
using Response = ScriptedServer::Response;

constexpr std::size_t k_chunk = 65'536;

void check_failed(const ExampleResult& result, const std::string& what) {
  CHECK(result.exit_code == 1);
  CHECK(result.output.empty());
  CHECK_THAT(result.errors, StartsWith("tus_upload: ") && Contains(what));
  CHECK(result.errors.find('\n') == result.errors.size() - 1);
  CHECK(result.errors.find('\033') == std::string::npos);
}

/// How many lines of `text` there are, of which each ends so.
std::size_t lines_in(const std::string& text, std::string_view end) {
  std::size_t lines = 0;
  for (std::size_t at = 0; at < text.size(); ++lines) {
    const std::size_t next = text.find('\n', at) + 1;
    CHECK(std::string_view(text).substr(at, next - at).ends_with(end));
    at = next;
  }
  return lines;
}

std::string methods_of(const std::vector<Request>& requests) {
  std::string methods;
  for (const Request& request : requests) methods += std::string(request.method_string()) + ' ';
  return methods;
}

struct ScriptFixture : TusUploadFixture {
  const std::string text = test_text(7, 12 * k_chunk + 5);
  const std::filesystem::path file = make_file("film.bin", text);
  ScriptedUpload upload;

  /// By other programs.
  std::string base64_sha1(std::string_view bytes) const {
    const std::string command = "sha1sum < '" + make_file("digested.bin", bytes).string() +
                                "' | head -c 40 | tr a-f A-F | basenc --base16 -d | base64";
    const std::string line = run_program("/bin/sh", {"-c", command}).output;
    return line.substr(0, line.find('\n'));
  }

  ExampleResult send_chunks(const ScriptedServer& server) const {
    return send(file, server.url(), {"--chunk-bytes", std::to_string(k_chunk)});
  }
};

TEST_CASE_METHOD(ScriptFixture, "tus_upload: requests say what the protocol wants") {
  ScriptedServer server([&](const Request& request) { return upload(request); });
  const auto strange = make_file("caf\xe9", text);
  const ExampleResult result =
      send(strange, server.url(), {"--chunk-bytes", std::to_string(k_chunk)});
  const std::vector<Request>& requests = server.stop();
  CHECK(result.errors.empty());
  CHECK(result.output == line_for(server.url("/files/one"), strange));
  CHECK((upload.bytes == text));
  REQUIRE(requests.size() == 14);
  CHECK(server.connections() == 1);
  for (const Request& request : requests) {
    CHECK(request["Tus-Resumable"] == "1.0.0");
    CHECK("http://" + std::string(request["Host"]) == server.url(""));
  }
  CHECK(requests[0].method_string() == "POST");
  CHECK(requests[0].target() == "/files/");
  CHECK(requests[0]["Upload-Length"] == std::to_string(text.size()));
  CHECK(requests[0]["Upload-Metadata"] == "filename Y2Fm6Q==");
  CHECK(requests[0]["Content-Length"] == "0");
  CHECK(requests[13].method_string() == "PATCH");
  CHECK(requests[13].target() == "/files/one");
  CHECK(requests[13]["Content-Type"] == "application/offset+octet-stream");
  CHECK(requests[13]["Upload-Offset"] == std::to_string(12 * k_chunk));
  CHECK(requests[13]["Content-Length"] == "5");
  CHECK(requests[13]["Upload-Checksum"] == "sha1 " + base64_sha1(text.substr(12 * k_chunk)));
}

TEST_CASE_METHOD(ScriptFixture, "tus_upload: asks where the upload stands after what may pass") {
  // Each PATCH fails once. More failures than retries: progress between them counts.
  std::vector<std::optional<unsigned>> troubles = {409, 423,          460, 408, 429, 500,
                                                   503, std::nullopt, 507, 502, 409, 423};
  bool fail = false;
  ScriptedServer server([&](const Request& request) -> std::optional<Response> {
    if (request.method() != http::verb::patch) return upload(request);
    fail = !fail && !troubles.empty();
    if (!fail) return upload(request);
    const std::optional<unsigned> trouble = troubles.back();
    troubles.pop_back();
    if (!trouble) return std::nullopt;
    return ScriptedUpload::answer(*trouble);
  });
  const ExampleResult result = send_chunks(server);
  const std::vector<Request>& requests = server.stop();
  CHECK(lines_in(result.errors, "; trying again\n") == 12);
  CHECK(troubles.empty());
  CHECK_THAT(result.errors,
             StartsWith("tus_upload: PATCH " + server.url("/files/one") +
                        ": the server answered 423 Locked; trying again\n") &&
                 Contains(": the server answered 507 Insufficient Storage; trying again\n"));
  CHECK(result.output == line_for(server.url("/files/one"), file));
  CHECK((upload.bytes == text));
  std::string methods = "POST ";
  for (int i = 0; i < 12; ++i) methods += "PATCH HEAD PATCH ";
  CHECK(methods_of(requests) == methods + "PATCH ");
  CHECK(server.connections() == 2);
}

TEST_CASE_METHOD(ScriptFixture, "tus_upload: POST and HEAD are tried again as well") {
  int asked = 0;
  ScriptedServer server([&](const Request& request) -> std::optional<Response> {
    switch (++asked) {
      case 1:
        return ScriptedUpload::answer(503);
      case 2:
        return std::nullopt;
      case 4:  // Stored, but the client is not told.
        upload(request);
        return std::nullopt;
      case 5:
        return ScriptedUpload::answer(423);
      default:
        return upload(request);
    }
  });
  const ExampleResult result = send_chunks(server);
  const std::vector<Request>& requests = server.stop();
  CHECK(result.errors == "tus_upload: POST " + server.url() +
                             ": the server answered 503 Service Unavailable; trying again\n");
  CHECK(result.output == line_for(server.url("/files/one"), file));
  CHECK((upload.bytes == text));
  CHECK_THAT(methods_of(requests), StartsWith("POST POST POST PATCH HEAD HEAD PATCH PATCH "));
}

TEST_CASE_METHOD(ScriptFixture, "tus_upload: progress whose answers are all lost is progress") {
  ScriptedServer server([&](const Request& request) -> std::optional<Response> {
    Response response = upload(request);
    if (request.method() == http::verb::patch) return std::nullopt;
    return response;
  });
  const ExampleResult result = send_chunks(server);
  const std::vector<Request>& requests = server.stop();
  CHECK(lines_in(result.errors, "; trying again\n") == 13);
  CHECK(result.output == line_for(server.url("/files/one"), file));
  CHECK((upload.bytes == text));
  std::string methods = "POST ";
  for (int i = 0; i < 13; ++i) methods += "PATCH HEAD ";
  CHECK(methods_of(requests) == methods);
}

TEST_CASE_METHOD(ScriptFixture, "tus_upload: a server that takes a part of a chunk gets the rest") {
  ScriptedServer server([&](const Request& request) {
    Request less = request;
    less.body().resize(std::min<std::size_t>(less.body().size(), 50'000));
    return upload(less);
  });
  const ExampleResult result = send_chunks(server);
  const std::vector<Request>& requests = server.stop();
  CHECK(result.errors.empty());
  CHECK(result.output == line_for(server.url("/files/one"), file));
  CHECK((upload.bytes == text));
  for (const Request& request : requests) {
    if (request.method() != http::verb::patch) continue;
    REQUIRE(request["Upload-Checksum"] == "sha1 " + base64_sha1(request.body()));
  }
}

TEST_CASE_METHOD(ScriptFixture, "tus_upload: a location may be absolute or relative") {
  for (const auto& [location, target] :
       std::vector<std::pair<std::string, std::string>>{{"one", "/files/one"},
                                                        {"/other/one?a=b#c", "/other/one?a=b"},
                                                        {"../x/./one", "/x/one"},
                                                        {"http://HOST/one", "/one"}}) {
    INFO(location);
    ScriptedServer server([&, given = location](const Request& request) {
      upload.location = given;
      const std::size_t host = given.find("HOST");
      if (host != std::string::npos) upload.location.replace(host, 4, request["Host"]);
      return upload(request);
    });
    CHECK(send_chunks(server).output == line_for(server.url(target), file));
    CHECK(server.stop().back().target() == target);
  }
}

TEST_CASE_METHOD(ScriptFixture, "tus_upload: what is no answer of a tus server is said at once") {
  const auto check_refused = [&](const ScriptedServer::Script& script, const std::string& what,
                                 const std::string& methods) {
    INFO(what);
    ScriptedServer server(script);
    check_failed(send_chunks(server), what);
    CHECK(methods_of(server.stop()) == methods);
    std::filesystem::remove(folder / ".tus_urls.json");
  };
  const auto posted = [](const char* location) {
    return [location](const Request&) {
      Response response = ScriptedUpload::answer(201);
      response.set(http::field::location, location);
      return response;
    };
  };
  check_refused(posted(""), "the server gave no Location", "POST ");
  check_refused(posted("http://127.0.0.1:1/files/one"), "on another server", "POST ");
  check_refused(posted("//localhost/files/one"), "on another server", "POST ");
  check_refused(posted("https://127.0.0.1/files/one"), "https is not supported", "POST ");
  check_refused(posted("http://[/"), "a location that is no URL", "POST ");
  for (const unsigned status : {301U, 400U, 401U, 404U, 412U, 413U, 501U}) {
    check_refused(
        [&](const Request&) {
          Response response = ScriptedUpload::answer(status);
          response.set(http::field::location, "/elsewhere/");
          response.body() = "no\033[31m\n";
          return response;
        },
        "the server answered " + std::to_string(status) + ' ', "POST ");
  }
  check_refused(
      [&](const Request& request) {
        if (request.method() == http::verb::post) return upload(request);
        Response response = ScriptedUpload::answer(403);
        response.body() = "not yours\n";
        return response;
      },
      "the server answered 403 Forbidden (not yours)", "POST PATCH ");
  for (const char* const offset : {"", "0", "65537", "-1", "18446744073709551616", "1x"}) {
    check_refused(
        [&](const Request& request) {
          Response response = upload(request);
          response.set("Upload-Offset", offset);
          return response;
        },
        "no new Upload-Offset", "POST PATCH ");
  }
}

TEST_CASE_METHOD(ScriptFixture, "tus_upload: a URL that is no tus endpoint is called that") {
  const auto answer = [](unsigned status, const char* body) {
    Response response;
    response.result(status);
    response.body() = body;
    return response;
  };
  struct Case {
    unsigned status;
    const char* body;
    const char* said;
  };
  for (const Case& each :
       {Case{501, "<!DOCTYPE HTML>\n<html>", "501 Not Implemented"},
        Case{404, "<html>", "404 Not Found"}, Case{200, "", "200 OK"}, Case{201, "", "201 Created"},
        Case{405, "not for this address\n", "405 Method Not Allowed (not for this address)"}}) {
    ScriptedServer server([&](const Request&) { return answer(each.status, each.body); });
    const ExampleResult result = send_chunks(server);
    CHECK(result.exit_code == 1);
    CHECK(result.errors ==
          "tus_upload: " + server.url() + " is no tus endpoint: " + each.said + "\n");
    CHECK(methods_of(server.stop()) == "POST ");
  }
  // A proxy's, while the endpoint behind it starts.
  bool started = false;
  ScriptedServer server([&](const Request& request) {
    return std::exchange(started, true) ? upload(request) : answer(503, "<html>");
  });
  const ExampleResult result = send_chunks(server);
  CHECK(result.exit_code == 0);
  CHECK(result.errors == "tus_upload: POST " + server.url() +
                             ": the server answered 503 Service Unavailable; trying again\n");
}

TEST_CASE_METHOD(ScriptFixture, "tus_upload: what a server says before its answer is no answer") {
  ScriptedServer server([&](const Request& request) { return upload(request); },
                        "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
                        "HTTP/1.1 104 Upload Resumption Supported\r\n\r\n");
  const ExampleResult result = send_chunks(server);
  server.stop();
  CHECK(result.exit_code == 0);
  CHECK(result.errors.empty());
  CHECK((upload.bytes == text));
}

TEST_CASE_METHOD(ScriptFixture, "tus_upload: a server that speaks no HTTP is not asked again") {
  ScriptedServer server([](const Request&) { return std::nullopt; }, "SSH-2.0-OpenSSH_9.2\r\n");
  const ExampleResult result = send_chunks(server);
  check_failed(result, ": not an HTTP server\n");
  server.stop();
  CHECK(server.connections() == 1);
}

TEST_CASE_METHOD(ScriptFixture,
                 "tus_upload: an upload of this run that is gone is not begun anew") {
  ScriptedServer server([&](const Request& request) {
    return upload.bytes.size() < 3 * k_chunk ? upload(request) : ScriptedUpload::answer(404);
  });
  check_failed(send_chunks(server), "the server answered 404 Not Found");
  CHECK(methods_of(server.stop()) == "POST PATCH PATCH PATCH PATCH ");
  CHECK(kept().at(fingerprint_of(file)) == server.url("/files/one"));
}

TEST_CASE_METHOD(ScriptFixture,
                 "tus_upload: a kept URL that is not of an upload is not asked for ever") {
  for (const unsigned status : {400U, 403U, 404U, 405U, 410U}) {
    INFO(status);
    ScriptedServer server([&](const Request& request) {
      return request.target() == "/kept" ? ScriptedUpload::answer(status) : upload(request);
    });
    keep(file, server.url("/kept"));
    const ExampleResult result = send_chunks(server);
    CHECK(result.output == line_for(server.url("/files/one"), file));
    CHECK_THAT(methods_of(server.stop()), StartsWith("HEAD POST PATCH "));
    CHECK((upload.bytes == text));
  }
}

TEST_CASE_METHOD(ScriptFixture, "tus_upload: an answer may have a long header") {
  ScriptedServer server([&](const Request& request) {
    auto answer = upload(request);
    answer.set("Upload-Concat", std::string(50'000, 'x'));
    return answer;
  });
  const ExampleResult result = send_chunks(server);
  CHECK(result.errors.empty());
  CHECK(result.output == line_for(server.url("/files/one"), file));
}

TEST_CASE_METHOD(ScriptFixture, "tus_upload: a file that changes while it is sent is an error") {
  const auto check_noticed = [&](const std::function<void()>& change, const std::string& what) {
    INFO(what);
    write_contents(file, text);
    ScriptedServer server([&](const Request& request) {
      if (request.method() == http::verb::patch && upload.bytes.empty()) change();
      return upload(request);
    });
    check_failed(send_chunks(server), what);
    CHECK(methods_of(server.stop()) == "POST PATCH ");
    CHECK((upload.bytes == text.substr(0, k_chunk)));
    std::filesystem::remove(folder / ".tus_urls.json");
  };
  const auto put = [&](std::size_t position) {
    std::fstream bytes(file, std::ios::in | std::ios::out | std::ios::binary);
    bytes.seekp(static_cast<std::streamoff>(position));
    bytes.put(static_cast<char>(text[position] ^ 1));
  };
  check_noticed([&] { put(2 * k_chunk - 1); }, "the file changed while it was sent");
  // Where it was sent already.
  check_noticed([&] { put(0); }, "the file changed while it was sent");
  // As if at the same moment.
  check_noticed(
      [&] {
        const auto time = std::filesystem::last_write_time(file);
        put(k_chunk);
        std::filesystem::last_write_time(file, time);
      },
      "the file changed while it was sent");
  check_noticed([&] { std::ofstream(file, std::ios::app) << "more"; },
                "the file changed while it was sent");
  check_noticed([&] { std::filesystem::resize_file(file, k_chunk + 1); },
                "the file became shorter while it was read");
}

TEST_CASE_METHOD(ScriptFixture, "tus_upload: the first piece that fails ends the others") {
  ScriptedServer server([&](const Request& request) {
    Response response = upload(request);
    if (request.method() == http::verb::patch) response = ScriptedUpload::answer(413);
    response.keep_alive(false);  // The server has one connection at a time.
    return response;
  });
  check_failed(send(file, server.url(), {"--parallel", "3"}), "413 Payload Too Large");
  const std::string methods = methods_of(server.stop());
  CHECK(methods.size() <= std::string("POST POST POST PATCH PATCH PATCH ").size());
}

/// A port of this machine at which nobody listens, and nobody will.
class SilentPort {
 public:
  SilentPort() : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    auto* const any = reinterpret_cast<sockaddr*>(&address);
    if (fd_ < 0 || ::bind(fd_, any, size) != 0 || ::getsockname(fd_, any, &size) != 0) {
      throw std::system_error(errno, std::generic_category(), "bind");
    }
    port_ = ntohs(address.sin_port);
  }
  ~SilentPort() { ::close(fd_); }
  SilentPort(const SilentPort&) = delete;
  SilentPort& operator=(const SilentPort&) = delete;

  std::string url() const { return "http://127.0.0.1:" + std::to_string(port_) + "/files/"; }

 private:
  int fd_;
  unsigned short port_ = 0;
};

TEST_CASE_METHOD(ScriptFixture, "tus_upload: gives up after a bounded number of retries") {
  const SilentPort nobody;
  ScriptedServer ill([](const Request&) { return ScriptedUpload::answer(500); });
  ScriptedServer stuck([&](const Request& request) {  // Always knows better.
    if (request.method() != http::verb::patch) return upload(request);
    return ScriptedUpload::answer(409);
  });
  // Beast throws where a trailer is that long.
  ScriptedServer verbose([](const Request&) { return ScriptedUpload::answer(500); },
                         "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: " +
                             std::string(70'000, 'x') + "\r\n\r\n");
  // All at once, because they wait for seconds between their last retries.
  std::vector<std::unique_ptr<ExampleProgram>> programs;
  for (const std::string& url : {nobody.url(), ill.url(), stuck.url(), verbose.url()}) {
    const auto place = folder / std::to_string(programs.size());
    std::filesystem::create_directory(place);
    programs.push_back(std::make_unique<ExampleProgram>(
        place, "tus_upload", std::vector<std::string>{file.string(), url}));
  }
  const std::array<std::string, 4> troubles = {
      "POST " + nobody.url() + ": Connection refused",
      "POST " + ill.url() + ": the server answered 500 Internal Server Error",
      "PATCH " + stuck.url("/files/one") + ": the server answered 409 Conflict",
      "POST " + verbose.url() + ": buffer overflow"};
  for (std::size_t i = 0; i < programs.size(); ++i) {
    const ExampleResult result = programs[i]->wait();
    CHECK(result.exit_code == 1);
    CHECK(result.output.empty());
    CHECK(result.errors == "tus_upload: " + troubles[i] + "; trying again\n" +
                               "tus_upload: " + troubles[i] + ", also after 8 retries\n");
  }
  CHECK(ill.stop().size() == 9);
  CHECK(ill.connections() < 9);  // One serves what follows soon.
  std::string methods = "POST PATCH ";
  for (int retry = 0; retry < 8; ++retry) methods += "HEAD PATCH ";
  CHECK(methods_of(stuck.stop()) == methods);
}

}  // namespace
}  // namespace tidemark::test
