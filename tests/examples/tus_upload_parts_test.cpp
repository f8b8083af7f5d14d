// tus_upload --parallel: what becomes of the parts when the server has joined them.

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstddef>
#include <filesystem>
#include <future>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "../catch.hpp"
#include "tus_upload_fixture.hpp"
#include "tus_upload_scripted_server.hpp"

namespace tidemark::test {
namespace {

namespace http = boost::beast::http;
using Catch::Matchers::Contains;
using Request = ScriptedServer::Request;
using Response = ScriptedServer::Response;

/// Uploads and what joins them, as a tus server has them, by their targets.
struct ScriptedUploads {
  std::map<std::string, ScriptedUpload> uploads;
  int made = 0;

  Response operator()(const Request& request) {
    const std::string target(request.target());
    Response response = ScriptedUpload::answer(404);
    if (request.method() == http::verb::post) {
      const std::string location = "/files/" + std::to_string(++made);
      ScriptedUpload& upload = uploads[location];
      upload.location = location;
      response = upload(request);
      if (request["Upload-Concat"].starts_with("final;")) join(upload, request);
    } else if (const auto found = uploads.find(target); found != uploads.end()) {
      response = found->second(request);
      if (request.method() == http::verb::delete_) uploads.erase(found);
    }
    response.keep_alive(false);  // The server has one connection at a time.
    return response;
  }

 private:
  void join(ScriptedUpload& whole, const Request& request) {
    const std::string parts(request["Upload-Concat"]);
    for (std::size_t at = parts.find("/files/"); at != parts.npos;
         at = parts.find("/files/", at + 1)) {
      whole.bytes += uploads.at(parts.substr(at, parts.find(' ', at) - at)).bytes;
    }
    whole.length = std::to_string(whole.bytes.size());
  }
};

struct PartsFixture : TusUploadFixture {
  const std::string text = test_text(7, 300'001);
  const std::filesystem::path file = make_file("film.bin", text);
  ScriptedUploads uploads;

  ExampleResult send_parts(const ScriptedServer& server, const char* count = "3") const {
    return send(file, server.url(), {"--parallel", count});
  }

  static std::ptrdiff_t count(const std::vector<Request>& requests, http::verb method) {
    return std::ranges::count(requests, method, [](const Request& each) { return each.method(); });
  }
};

TEST_CASE_METHOD(PartsFixture, "tus_upload: parts that are not deleted are no error") {
  for (const std::optional<unsigned> status :
       {std::optional(404U), std::optional(405U), std::optional(500U), std::optional<unsigned>()}) {
    ScriptedServer server([&](const Request& request) -> std::optional<Response> {
      if (request.method() != http::verb::delete_) return uploads(request);
      if (!status) return std::nullopt;
      Response response = ScriptedUpload::answer(*status);
      response.keep_alive(false);
      return response;
    });
    const ExampleResult result = send_parts(server);
    const std::vector<Request>& requests = server.stop();
    CHECK(result.exit_code == 0);
    CHECK(result.errors.empty());
    const std::string whole = "/files/" + std::to_string(uploads.made);
    CHECK(result.output == line_for(server.url(whole), file));
    CHECK((uploads.uploads[whole].bytes == text));
    CHECK(count(requests, http::verb::delete_) == 3);
    CHECK(kept().empty());
  }
}

TEST_CASE_METHOD(PartsFixture,
                 "tus_upload: killed before the parts are deleted, it sends no more") {
  for (const char* const parallel : {"3", "1"}) {
    std::promise<pid_t> client;
    std::shared_future<pid_t> pid = client.get_future();
    bool killed = false;
    ScriptedServer server([&](const Request& request) -> std::optional<Response> {
      if (request.method() != http::verb::delete_) return uploads(request);
      if (!std::exchange(killed, true)) ::kill(pid.get(), SIGKILL);
      return uploads(request);
    });
    ExampleProgram program(folder.path(), "tus_upload",
                           {"--parallel", "3", file.string(), server.url()});
    client.set_value(program.pid());
    REQUIRE(program.wait().exit_code == -1);
    const std::string whole = kept().at(fingerprint_of(file));

    const ExampleResult result = send_parts(server, parallel);
    const std::vector<Request>& requests = server.stop();
    CHECK(whole == server.url("/files/" + std::to_string(uploads.made)));
    CHECK(result.exit_code == 0);
    CHECK(result.errors.empty());
    CHECK(result.output == line_for(whole, file));
    CHECK(count(requests, http::verb::post) == 4);
    CHECK(count(requests, http::verb::patch) == 3);
    CHECK(kept().count(fingerprint_of(file)) == 0);
    if (parallel == std::string("3")) CHECK(kept().empty());
    std::filesystem::remove(folder / ".tus_urls.json");
  }
}

TEST_CASE_METHOD(PartsFixture, "tus_upload: parts stay when the server has not joined them") {
  std::atomic<bool> joined = false;
  ScriptedServer server([&](const Request& request) {
    Response response = uploads(request);
    if (!joined && request.target() == "/files/4") response.erase("Upload-Offset");
    return response;
  });
  const ExampleResult early = send_parts(server);
  CHECK(early.exit_code == 1);
  CHECK_THAT(early.errors, Contains("the server has not joined the parts"));
  CHECK(kept().size() == 4);
  joined = true;
  const ExampleResult late = send_parts(server);
  const std::vector<Request>& requests = server.stop();
  CHECK(late.exit_code == 0);
  CHECK(late.output == line_for(server.url("/files/4"), file));
  CHECK(count(requests, http::verb::patch) == 3);
  CHECK(count(requests, http::verb::delete_) == 3);
  CHECK(kept().empty());
}

}  // namespace
}  // namespace tidemark::test
