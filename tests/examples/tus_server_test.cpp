// The tus server over the wire: what each request is answered. The protocol: https://tus.io

#include "../catch.hpp"
#include "tus_fixture.hpp"

using namespace tidemark;
using namespace tidemark::test;

TEST_CASE("OPTIONS tells what the server can do") {
  TusFixture tus({"--max-size", "1000"});
  const HttpResponse answer = tus.http.ask("OPTIONS", "/files/", {{"Origin", "http://page"}});
  CHECK(answer.result_int() == 204);
  CHECK(field(answer, "Tus-Version") == "1.0.0");
  CHECK(field(answer, "Tus-Max-Size") == "1000");
  CHECK(field(answer, "Tus-Checksum-Algorithm") == "sha1,sha256,md5,crc32");
  CHECK(field(answer, "Access-Control-Allow-Origin") == "*");
  CHECK(field(answer, "Access-Control-Allow-Methods").find("PATCH") != std::string::npos);
  CHECK(field(answer, "Content-Length").empty());
  for (const char* extension :
       {"creation", "creation-with-upload", "creation-defer-length", "termination", "expiration",
        "checksum", "checksum-trailer", "concatenation", "concatenation-unfinished"}) {
    INFO(extension);
    CHECK((',' + field(answer, "Tus-Extension") + ',').find("," + std::string(extension) + ",") !=
          std::string::npos);
  }
}

TEST_CASE("an upload is created, grows, and is given back") {
  TusFixture tus;
  const std::string bytes = test_text(1, 10'000);
  const HttpResponse created = tus.tus("POST", "/files/", {{"Upload-Length", "10000"}});
  REQUIRE(created.result_int() == 201);
  const std::string location = field(created, "Location");
  REQUIRE(location.starts_with("/files/"));
  CHECK(field(created, "Tus-Resumable") == "1.0.0");

  const HttpResponse begun = tus.head(location);
  CHECK(begun.result_int() == 200);
  CHECK(field(begun, "Upload-Offset") == "0");
  CHECK(field(begun, "Upload-Length") == "10000");
  CHECK(field(begun, "Cache-Control") == "no-store");

  const HttpResponse first = tus.patch(location, 0, bytes.substr(0, 3'000));
  CHECK(first.result_int() == 204);
  CHECK(field(first, "Upload-Offset") == "3000");
  CHECK(field(first, "Content-Length").empty());
  CHECK(tus.offset(location) == 3'000);
  CHECK(field(tus.patch(location, 3'000, bytes.substr(3'000)), "Upload-Offset") == "10000");
  CHECK(tus.content(location) == bytes);
  CHECK(contents(tus.data_file(location)) == bytes);
}

namespace {

struct Case {
  int status;
  std::string method, target;
  Fields fields;
  std::string body = "";
};

/// For a server that takes 1,000 bytes; the upload at `location` has 10 of 100.
std::vector<Case> wrong_requests(const std::string& location) {
  const std::string unknown = "/files/0123456789abcdef0123456789abcdef";
  const std::pair<std::string_view, std::string> v{"Tus-Resumable", "1.0.0"};
  const std::pair<std::string_view, std::string> type{"Content-Type", k_offset_octets};
  return {
      {412, "POST", "/files/", {{"Upload-Length", "1"}}},
      {412, "POST", "/files/", {{"Upload-Length", "1"}, {"Tus-Resumable", "0.2.2"}}},
      {412, "HEAD", location, {{"Tus-Resumable", "2.0.0"}}},
      {412, "PATCH", location, {type, {"Upload-Offset", "10"}}, "x"},
      {412, "DELETE", location, {}},
      {400, "POST", "/files/", {v}},
      {400, "POST", "/files/", {v, {"Upload-Length", "-1"}}},
      {400, "POST", "/files/", {v, {"Upload-Length", "1e3"}}},
      {400, "POST", "/files/", {v, {"Upload-Length", ""}}},
      {400, "POST", "/files/", {v, {"Upload-Length", "9223372036854775808"}}},
      {400, "POST", "/files/", {v, {"Upload-Length", "5"}, {"Upload-Defer-Length", "1"}}},
      {400, "POST", "/files/", {v, {"Upload-Defer-Length", "2"}}},
      {400, "POST", "/files/", {v, {"Upload-Length", "5"}, {"Upload-Length", "6"}}},
      {400, "POST", "/files/", {v, {"Upload-Length", "5"}, {"Upload-Metadata", "a !!!!"}}},
      {400, "POST", "/files/", {v, {"Upload-Length", "5"}, {"Upload-Metadata", "a YQ==,a YQ=="}}},
      {400, "POST", "/files/", {v, {"Upload-Length", "5"}, {"Upload-Concat", "whole"}}},
      {400, "POST", "/files/", {v, {"Upload-Concat", "final;"}}},
      {400, "POST", "/files/", {v, {"Upload-Concat", "final;/files/../x"}}},
      {400, "POST", "/files/", {v, {"Upload-Concat", "final;" + location}}},  // Not a partial one.
      {404, "POST", "/files/", {v, {"Upload-Concat", "final;" + unknown + "-part"}}},
      {413, "POST", "/files/", {v, {"Upload-Length", "1001"}}},
      {201, "POST", "/files/", {v, {"Upload-Length", "1000"}}},
      {201, "POST", "/files", {v, {"Upload-Length", "999"}}},
      {404, "HEAD", unknown, {v}},
      {404, "PATCH", unknown, {v, type, {"Upload-Offset", "0"}}, "x"},
      {404, "DELETE", unknown, {v}},
      {404, "GET", unknown, {}},
      {404, "HEAD", "/files/..", {v}},
      {404, "HEAD", "/files/a/b", {v}},
      {404, "HEAD", "/files/a%2e", {v}},
      {404, "GET", "/files/" + std::string(65, 'a'), {}},
      {404, "GET", "/none", {}},
      {405, "PUT", location, {v}},
      {405, "POST", location, {v}},
      {405, "DELETE", "/files/", {v}},
      {405, "POST", "/", {v}},
      {415, "PATCH", location, {v, {"Upload-Offset", "10"}}, "x"},
      {415, "PATCH", location, {v, {"Upload-Offset", "10"}, {"Content-Type", "text/plain"}}, "x"},
      {400, "PATCH", location, {v, type}, "x"},
      {400, "PATCH", location, {v, type, {"Upload-Offset", "ten"}}, "x"},
      {400, "PATCH", location, {v, type, {"Upload-Offset", "10"}, {"Upload-Length", "99"}}, "x"},
      {400,
       "PATCH",
       location,
       {v, type, {"Upload-Offset", "10"}, {"Upload-Checksum", "sha9 YQ=="}},
       "x"},
      {400,
       "PATCH",
       location,
       {v, type, {"Upload-Offset", "10"}, {"Upload-Checksum", "md5 YQ=="}},
       "x"},
      {409, "PATCH", location, {v, type, {"Upload-Offset", "9"}}, "x"},
      {409, "PATCH", location, {v, type, {"Upload-Offset", "11"}}, "x"},
      {413, "PATCH", location, {v, type, {"Upload-Offset", "10"}}, std::string(91, 'x')},
      {400, "GET", "/files/?limit=0", {}},
      {400, "GET", "/files/?limit=101", {}},
      {400, "GET", "/files/?after=..", {}},
  };
}

}  // namespace

TEST_CASE("a wrong request is refused as the protocol says") {
  TusFixture tus({"--max-size", "1000"});
  const std::string location = tus.create(100);
  REQUIRE(tus.patch(location, 0, "0123456789").result_int() == 204);
  for (const Case& each : wrong_requests(location)) {
    INFO(each.method << ' ' << each.target << ' '
                     << (each.fields.empty() ? "" : each.fields.back().second));
    HttpConnection http(tus.server);
    const HttpResponse answer = http.ask(each.method, each.target, each.fields, each.body);
    CHECK(static_cast<int>(answer.result_int()) == each.status);
    CHECK(field(answer, "Tus-Resumable") == "1.0.0");
    CHECK((field(answer, "Tus-Version") == "1.0.0") == (each.status == 412));
  }
  CHECK(tus.offset(location) == 10);
  CHECK(contents(tus.data_file(location)).substr(0, 10) == "0123456789");
}

TEST_CASE("metadata comes back as it came") {
  TusFixture tus;
  // Text, a flag, bytes that are no text, and a text that would end a header.
  const std::string metadata = "filename aMOkdHRlLnR4dA==,is_public,raw //79,evil YQ0KWDogeQ==";
  const std::string location = tus.create(5, {{"Upload-Metadata", metadata}});
  CHECK(field(tus.head(location), "Upload-Metadata") == metadata);
  const HttpResponse content = tus.http.ask("HEAD", location, {});
  CHECK(field(content, "Content-Disposition") == "attachment; filename*=UTF-8''h%C3%A4tte.txt");
}

TEST_CASE("a method can be told by X-HTTP-Method-Override") {
  TusFixture tus;
  const std::string location = tus.create(3);
  const HttpResponse answer = tus.tus("POST", location,
                                      {{"X-HTTP-Method-Override", "PATCH"},
                                       {"Content-Type", k_offset_octets},
                                       {"Upload-Offset", "0"}},
                                      "abc");
  CHECK(answer.result_int() == 204);
  CHECK(tus.content(location) == "abc");

  // Whoever passes answers on knows only the method that was sent: each body is as that says.
  const HttpResponse content = tus.http.ask("HEAD", location, {{"X-HTTP-Method-Override", "GET"}});
  CHECK(field(content, "Content-Length") == "3");
  for (const char* const target : {"/", location.c_str()}) {
    tus.http.ask("POST", target, {{"X-HTTP-Method-Override", "HEAD"}});
    CHECK(tus.http.ask("GET", "/healthz", {}).body() == "ok\n");
  }
}

TEST_CASE("bytes that do not match their checksum are not kept") {
  TusFixture tus;
  const std::pair<const char*, const char*> digests[] = {
      {"sha1", "qZk+NkcGgWq6PiVxeFDCbJzQ2J0="},
      {"sha256", "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0="},
      {"md5", "kAFQmDzST7DWlj99KOF/cg=="},
      {"crc32", "NSRBwg=="}};
  for (const auto& [algorithm, digest] : digests) {
    INFO(algorithm);
    const std::string location = tus.create(3);
    const Fields checksum{{"Upload-Checksum", std::string(algorithm) + ' ' + digest}};
    const HttpResponse refused = tus.patch(location, 0, "abd", checksum);
    CHECK(refused.result_int() == 460);
    CHECK(refused.reason() == "Checksum Mismatch");
    CHECK(tus.offset(location) == 0);
    CHECK(tus.patch(location, 0, "abc", checksum).result_int() == 204);
    CHECK(tus.content(location) == "abc");
  }
}

TEST_CASE("a checksum may follow in the trailer") {
  TusFixture tus;
  const std::string location = tus.create(3);
  const std::string header =
      patch_header(location, 0, "Transfer-Encoding: chunked\r\nTrailer: Upload-Checksum");
  SECTION("a right one") {
    tus.http.send(header + chunk("ab") + chunk("c") +
                  "0\r\nUpload-Checksum: md5 kAFQmDzST7DWlj99KOF/cg==\r\n\r\n");
    CHECK(tus.http.receive().result_int() == 204);
    CHECK(tus.content(location) == "abc");
  }
  SECTION("a wrong one") {
    tus.http.send(header + chunk("abd") +
                  "0\r\nUpload-Checksum: md5 kAFQmDzST7DWlj99KOF/cg==\r\n\r\n");
    CHECK(tus.http.receive().result_int() == 460);
    CHECK(tus.offset(location) == 0);
  }
  SECTION("none") {
    tus.http.send(header + chunk("abc") + "0\r\n\r\n");
    CHECK(tus.http.receive().result_int() == 400);
    CHECK(tus.offset(location) == 0);
  }
}

TEST_CASE("an upload is terminated") {
  TusFixture tus;
  const std::string location = tus.create(10);
  REQUIRE(tus.patch(location, 0, "abc").result_int() == 204);
  CHECK(tus.tus("DELETE", location, {}).result_int() == 204);
  CHECK(tus.head(location).result_int() == 404);
  CHECK(!std::filesystem::exists(tus.data_file(location)));
}

TEST_CASE("an upload expires, and says when") {
  TusFixture tus({"--expire-after", "1s"});
  const HttpResponse created = tus.tus("POST", "/files/", {{"Upload-Length", "10"}});
  const std::string location = field(created, "Location");
  CHECK(field(created, "Upload-Expires").ends_with(" GMT"));
  int status = 204;
  // It is the server's clock that passes; each request asks it.
  for (std::uint64_t offset = 0; status == 204 && offset == 0;) {
    status = static_cast<int>(tus.head(location).result_int()) == 200 ? 204 : 410;
  }
  CHECK(status == 410);
  CHECK(tus.http.ask("GET", location, {}).result_int() == 410);
  for (const char* const length : {"0", "3"}) {  // A complete one does not expire.
    const HttpResponse whole =
        tus.tus("POST", "/files/", {{"Upload-Length", length}, {"Content-Type", k_offset_octets}},
                std::string_view("abc").substr(0, std::stoul(length)));
    CHECK(whole.result_int() == 201);
    CHECK(field(whole, "Upload-Expires").empty());
  }
  CHECK(tus.patch(location, 0, "x").result_int() == 410);
}

TEST_CASE("each answer about an upload that expires says when") {
  TusFixture tus({"--expire-after", "1h"});
  const HttpResponse created = tus.tus("POST", "/files/", {{"Upload-Length", "10"}});
  const std::string location = field(created, "Location");
  const std::string expires = field(created, "Upload-Expires");
  CHECK(expires.ends_with(" GMT"));
  CHECK(field(tus.head(location), "Upload-Expires") == expires);
  CHECK(field(tus.patch(location, 0, "abc"), "Upload-Expires") == expires);
  CHECK(field(tus.patch(location, 3, "defghij"), "Upload-Expires").empty());  // It is complete.
  CHECK(field(tus.head(location), "Upload-Expires").empty());
}

TEST_CASE("the page, the health and the metrics are served") {
  TusFixture tus;
  CHECK(tus.http.ask("GET", "/healthz", {}).body() == "ok\n");
  tus.create(5);
  const std::string metrics = tus.http.ask("GET", "/metrics", {}).body();
  CHECK(metrics.find("\ntidemark_uploads_created_total 1\n") != std::string::npos);
  CHECK(metrics.find("\ntus_connections 1\n") != std::string::npos);
  CHECK(metrics.find("\ntidemark_append_seconds_sum 0.000000\n") != std::string::npos);
  CHECK(metrics.find("\ntidemark_commit_seconds_count 1\n") != std::string::npos);
  const HttpResponse page = tus.http.ask("GET", "/", {});
  CHECK(field(page, "Content-Type") == "text/html; charset=utf-8");
  CHECK(field(page, "Content-Security-Policy").starts_with("default-src 'self'"));
  CHECK(page.body().find("page.js") != std::string::npos);
  CHECK(tus.http.ask("HEAD", "/page.js", {}).result_int() == 200);
}

TEST_CASE("the page uploads to the base path") {
  TusFixture tus({"--base-path", "/up/load/"});
  const std::string script = tus.http.ask("GET", "/upload.js", {}).body();
  CHECK(script.find("/up/load/") != std::string::npos);
  CHECK(script.find("/files/") == std::string::npos);
  const HttpResponse created = tus.tus("POST", "/up/load/", {{"Upload-Length", "1"}});
  CHECK(field(created, "Location").starts_with("/up/load/"));
}

TEST_CASE("MB are millions, and MiB are not") {
  for (const auto& [size, bytes] : {std::pair{"400MB", "400000000"}, {"1MiB", "1048576"}}) {
    TusFixture tus({"--max-size", size});
    CHECK(field(tus.http.ask("OPTIONS", "/files/", {}), "Tus-Max-Size") == bytes);
  }
}

TEST_CASE("an address that is taken is named") {
  TusFixture first;
  const std::string address = "127.0.0.1:" + std::to_string(first.server.port());
  TemporaryFolder folder;
  const ExampleResult second = run_example(folder.path(), "tus_server", {"--listen", address});
  CHECK(second.exit_code == 1);
  CHECK(second.errors.ends_with("tus_server: listen on " + address + ": Address already in use\n"));
}

TEST_CASE("wrong arguments end the server with a message") {
  TemporaryFolder folder;
  for (const std::vector<std::string>& arguments : {std::vector<std::string>{"--listen", "nowhere"},
                                                    {"--listen", "127.0.0.1:65536"},
                                                    {"--base-path", "/"},
                                                    {"--threads", "0"},
                                                    {"--threads", "65"},
                                                    {"--max-size", "0"},
                                                    {"--quota", "0"},
                                                    {"--expire-after", "0"},
                                                    {"--max-connections", "0"},
                                                    {"--max-connections", "1000001"},
                                                    {"--idle-timeout", "0"},
                                                    {"--idle-timeout", "86401"},
                                                    {"--durability", "some"},
                                                    {"--driver", "1"},
                                                    {"--unknown"}}) {
    const ExampleResult result = run_example(folder.path(), "tus_server", arguments);
    CHECK(result.exit_code == 2);
    CHECK(result.errors.starts_with("tus_server: "));
  }
}

TEST_CASE("arguments at their bounds are taken") {
  TusFixture tus({"--max-connections", "1000000", "--idle-timeout", "86400", "--quota", "1",
                  "--expire-after", "1", "--max-size", "1", "--driver", "threads"});
  CHECK(tus.http.ask("GET", "/healthz", {}).result_int() == 200);
}

TEST_CASE("the help names each option") {
  TemporaryFolder folder;
  const ExampleResult help = run_example(folder.path(), "tus_server", {"--help"});
  CHECK(help.exit_code == 0);
  for (const char* const option :
       {"--listen", "--data", "--base-path", "--max-size", "--expire-after", "--quota", "--threads",
        "--driver", "--durability", "--max-connections", "--idle-timeout"}) {
    INFO(option);
    CHECK(help.output.find(option) != std::string::npos);
  }
}
