// tus_upload as its users call it, with the server of examples/tus_server/.

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <fcntl.h>
#include <filesystem>
#include <sched.h>
#include <string>
#include <unistd.h>
#include <vector>

#include "../catch.hpp"
#include "tus_upload_fixture.hpp"

namespace tidemark::test {
namespace {

using Catch::Matchers::Contains;
using Catch::Matchers::StartsWith;

constexpr std::size_t k_large = (std::size_t{24} << 20) + 777;

/// One line for standard error, which names the program and holds `what`.
void check_error(const ExampleResult& result, int exit_code, const std::string& what) {
  CHECK(result.exit_code == exit_code);
  CHECK(result.output.empty());
  CHECK_THAT(result.errors, StartsWith("tus_upload: ") && Contains(what));
  CHECK(result.errors.find('\n') == result.errors.size() - 1);
}

TEST_CASE_METHOD(TusServerFixture, "tus_upload: a file of any size is sent, and one line says so") {
  for (const std::size_t size : {0U, 1U, 65'536U, (8U << 20), (20U << 20) + 777}) {
    const auto file = make_file("film.bin", test_text(size, size));
    check_sent(send(file, url()), file);
  }
}

TEST_CASE_METHOD(TusServerFixture, "tus_upload: chunks may have any size") {
  const auto file = make_file("film.bin", test_text(1, 3'000'003));
  for (const char* const bytes : {"65536", "65537", "1000000", "33554432"}) {
    check_sent(send(file, url(), {"--chunk-bytes", bytes}), file);
  }
}

TEST_CASE_METHOD(TusServerFixture, "tus_upload: a file is sent in pieces that become one upload") {
  for (const std::size_t size : {0U, 1U, 3U, 300'001U, (20U << 20) + 777}) {
    const auto file = make_file("film.bin", test_text(size, size));
    check_sent(send(file, url(), {"--parallel", "4", "--chunk-bytes", "100000"}), file);
  }
}

TEST_CASE_METHOD(TusServerFixture, "tus_upload: killed and run again, it goes on") {
  const auto file = make_file("film.bin", test_text(7, k_large));
  const std::string id = kill_in_the_middle(file).at(0);
  const std::uint64_t offset = offset_of(id);
  REQUIRE(kept().count(fingerprint_of(file)) == 1);
  // Killed again, with chunks of another size, further on.
  kill_when(file, {}, [&] { return offset_of(id) > offset + 1'000'000; });
  REQUIRE(offset_of(id) < k_large);
  REQUIRE(kept_ids() == std::vector{id});
  const ExampleResult result = send(file, url(), {"--chunk-bytes", "1000000"});
  check_sent(result, file);
  CHECK(id_of(url_in(result)) == id);
  CHECK(uploads_on_server() == 1);
}

TEST_CASE_METHOD(TusServerFixture, "tus_upload: killed in pieces and run again, each goes on") {
  const auto file = make_file("film.bin", test_text(7, k_large));
  const std::vector<std::string> ids = kill_in_the_middle(file, {"--parallel", "4"}, 4);
  REQUIRE(uploads_on_server() == 4);
  for (int part = 1; part <= 4; ++part) {
    CHECK(kept().count(fingerprint_of(file) + "--part:" + std::to_string(part) + "/4") == 1);
  }
  const ExampleResult result = send(file, url(), {"--parallel", "4", "--chunk-bytes", "1000000"});
  check_sent(result, file);
  const std::string id = id_of(url_in(result));
  CHECK(std::ranges::find(ids, id) == ids.end());
  for (const std::string& part : ids) CHECK(offset_of(part) >= k_large / 4);
  CHECK(uploads_on_server() == 5);
}

TEST_CASE_METHOD(TusServerFixture,
                 "tus_upload: goes on when the server was killed and comes back") {
  const auto file = make_file("film.bin", test_text(7, k_large));
  for (const char* const parallel : {"1", "3"}) {
    const auto count = static_cast<std::size_t>(std::atoi(parallel));
    ExampleProgram client(folder.path(), "tus_upload",
                          {"--chunk-bytes", "65536", "--parallel", parallel, file.string(), url()});
    std::vector<std::string> ids;
    const auto has_begun = [&] {
      ids = kept_ids();
      return ids.size() == count &&
             std::ranges::all_of(ids, [&](const std::string& id) { return offset_of(id) > 0; });
    };
    while (!client.has_ended() && !has_begun()) ::sched_yield();
    REQUIRE_FALSE(client.has_ended());
    restart_server();
    const ExampleResult result = client.wait();
    check_sent(result, file);
    if (count == 1) CHECK(id_of(url_in(result)) == ids.at(0));
    for (const std::string& id : ids) CHECK(offset_of(id) >= k_large / count);
  }
}

TEST_CASE_METHOD(TusServerFixture, "tus_upload: what was deleted on the server is sent anew") {
  const auto file = make_file("film.bin", test_text(7, k_large));
  const std::string id = kill_in_the_middle(file).at(0);
  const auto status =
      HttpConnection(*server).ask("DELETE", "/files/" + id, {{"Tus-Resumable", "1.0.0"}}).result();
  REQUIRE(status == http::status::no_content);
  const ExampleResult result = send(file, url());
  check_sent(result, file);
  CHECK(id_of(url_in(result)) != id);
}

TEST_CASE_METHOD(TusServerFixture, "tus_upload: what the server has already is not sent again") {
  const auto file = make_file("film.bin", test_text(7, 3'000'000));
  const ExampleResult first = send(file, url());
  check_sent(first, file);
  keep(file, url_in(first));
  const ExampleResult second = send(file, url());
  check_sent(second, file);
  CHECK(second.output == first.output);
  CHECK(uploads_on_server() == 1);
}

TEST_CASE_METHOD(TusServerFixture, "tus_upload: a URL that is not of this file is not used") {
  const auto other = make_file("other.bin", "of another length");
  const auto file = make_file("film.bin", test_text(7, 3'000'000));
  const ExampleResult first = send(other, url());
  for (const std::string& wrong :
       {url_in(first), std::string("http://127.0.0.1:1/files/film"), std::string("no URL"),
        std::string("https://127.0.0.1/files/film")}) {
    keep(file, wrong);
    check_sent(send(file, url()), file);
  }
  CHECK(contents(stored(id_of(url_in(first)))) == "of another length");
}

TEST_CASE_METHOD(TusServerFixture, "tus_upload: the URL store is where it is told to be") {
  const auto file = make_file("film.bin", test_text(7, 1'000'000));
  const std::string store = folder / "urls.json";
  check_sent(send(file, url(), {"--url-store", store}), file);
  CHECK(contents(store) == "{}");
  CHECK_FALSE(std::filesystem::exists(folder / ".tus_urls.json"));
  write_contents(store, "somebody's text");
  check_error(send(file, url(), {"--url-store", store}), 1, store);
  CHECK(contents(store) == "somebody's text");
}

TEST_CASE_METHOD(TusServerFixture, "tus_upload: a bar shows progress on a terminal") {
  const auto file = make_file("film.bin", test_text(1, 5'000'000));
  const int terminal = ::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
  REQUIRE(terminal >= 0);
  REQUIRE(::grantpt(terminal) == 0);
  REQUIRE(::unlockpt(terminal) == 0);
  ExampleProgram program(folder.path(), "tus_upload", {file.string(), url()}, ::ptsname(terminal));
  // Reading ends when the program has let go of its end.
  std::string drawn;
  std::array<char, 4096> piece{};
  for (ssize_t got = 1; got > 0;) {
    got = ::read(terminal, piece.data(), piece.size());
    if (got > 0) drawn.append(piece.data(), static_cast<std::size_t>(got));
  }
  ::close(terminal);
  check_sent(program.wait(), file);
  CHECK_THAT(drawn, Contains("\rreading ") && Contains("\rsending "));
  CHECK(drawn.ends_with("\r\033[K"));
}

TEST_CASE_METHOD(TusUploadFixture, "tus_upload: wrong arguments are refused") {
  const std::string url = "http://127.0.0.1:1/files/";
  const auto file = make_file("film.bin", "bytes");
  check_error(send(file, url, {"--chunks=65536"}), 2, "--chunks");
  check_error(send(file, url, {"--chunk-bytes", "65535"}), 2, "--chunk-bytes");
  check_error(send(file, url, {"--chunk-bytes", "33554433"}), 2, "--chunk-bytes");
  check_error(send(file, url, {"--parallel", "0"}), 2, "--parallel");
  check_error(send(file, url, {"--parallel", "65"}), 2, "--parallel");
  check_error(send(file, url, {file.string()}), 2, "URL");
  check_error(send(file, "https://127.0.0.1/files/"), 2, "https is not supported, only http");
  for (const char* const wrong :
       {"127.0.0.1:80", "/files/", "ftp://127.0.0.1/", "http:///files/", "http://a b/",
        "http://me:secret@127.0.0.1/files/", "http://127.0.0.1:70000/files/", "http://[::1/"}) {
    INFO(wrong);
    check_error(send(file, wrong), 2, "URL");
  }
  check_error(run_example(folder.path(), "tus_upload"), 2, "FILE");
  check_error(run_example(folder.path(), "tus_upload", {file.string()}), 2, "URL");
  check_error(send(folder / "missing", url), 1, "no such file: " + (folder / "missing").string());
  check_error(send(folder.path(), url), 1, "no such file: " + folder.path().string());
  CHECK_FALSE(std::filesystem::exists(folder / ".tus_urls.json"));

  const ExampleResult help = run_example(folder.path(), "tus_upload", {"--help"});
  CHECK(help.exit_code == 0);
  CHECK_THAT(help.output, Contains("--url-store") && Contains("--parallel") && Contains("URL"));
  CHECK(help.errors.empty());
}

}  // namespace
}  // namespace tidemark::test
