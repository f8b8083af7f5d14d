// tus_upload as its users call it, with the server of examples/tus_server/.

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <fcntl.h>
#include <filesystem>
#include <sched.h>
#include <string>
#include <string_view>
#include <system_error>
#include <unistd.h>
#include <vector>

#include "../catch.hpp"
#include "tus_upload_fixture.hpp"

namespace tidemark::test {
namespace {

using Catch::Matchers::Contains;
using Catch::Matchers::EndsWith;
using Catch::Matchers::Matches;
using Catch::Matchers::StartsWith;

constexpr std::size_t k_large = (std::size_t{24} << 20) + 777;

const std::string k_going_on = R"(tus_upload: going on at \d+\.\d MiB\n)";

/// One line for standard error, which names the program and holds `what`.
void check_error(const ExampleResult& result, int exit_code, const std::string& what) {
  CHECK(result.exit_code == exit_code);
  CHECK(result.output.empty());
  CHECK_THAT(result.errors, StartsWith("tus_upload: ") && Contains(what));
  CHECK(result.errors.find('\n') == result.errors.size() - 1);
}

/// What a program sees as a terminal.
class Terminal {
 public:
  Terminal() : fd_(::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC)) {
    if (fd_ < 0 || ::grantpt(fd_) != 0 || ::unlockpt(fd_) != 0) {
      throw std::system_error(errno, std::generic_category(), "posix_openpt");
    }
  }
  ~Terminal() { ::close(fd_); }
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;

  const char* name() const { return ::ptsname(fd_); }

  /// What the program draws until it has drawn `text`, or, when that is empty, has ended.
  std::string read_until(std::string_view text) const {
    std::string drawn;
    std::array<char, 4096> piece{};
    for (ssize_t got = 1; got > 0 && (text.empty() || drawn.find(text) == drawn.npos);) {
      got = ::read(fd_, piece.data(), piece.size());
      if (got > 0) drawn.append(piece.data(), static_cast<std::size_t>(got));
    }
    return drawn;
  }

 private:
  const int fd_;
};

TEST_CASE_METHOD(TusServerFixture, "tus_upload: a file of any size is sent, and one line says so") {
  for (const std::size_t size : {0U, 1U, 65'536U, (8U << 20), (20U << 20) + 777}) {
    const auto file = make_file("film.bin", test_text(size, size));
    check_sent(send(file, url()), file);
  }
}

TEST_CASE_METHOD(TusServerFixture, "tus_upload: chunks may have any size") {
  const auto file = make_file("film.bin", test_text(1, 3'000'003));
  for (const char* const bytes : {"65536", "65537", "1000000", "64KiB", "1MiB", "33mb"}) {
    check_sent(send(file, url(), {"--chunk-bytes", bytes}), file);
  }
}

TEST_CASE_METHOD(TusServerFixture, "tus_upload: a file is sent in pieces that become one upload") {
  for (const std::size_t size : {0U, 1U, 3U, 300'001U, (20U << 20) + 777}) {
    const auto file = make_file("film.bin", test_text(size, size));
    const std::ptrdiff_t before = uploads_on_server();
    check_sent(send(file, url(), {"--parallel", "4", "--chunk-bytes", "100000"}), file);
    CHECK(uploads_on_server() == before + 1);  // The parts are deleted.
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
  check_sent_after_all(result, file);
  CHECK_THAT(result.errors, Matches(k_going_on));
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
  check_sent_after_all(result, file);
  CHECK_THAT(result.errors, Matches(k_going_on));
  const std::string id = id_of(url_in(result));
  CHECK(std::ranges::find(ids, id) == ids.end());
  CHECK(uploads_on_server() == 1);
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
    check_sent_after_all(result, file);
    CHECK_THAT(result.errors, Contains("; trying again\n"));
    if (count == 1) CHECK(id_of(url_in(result)) == ids.at(0));
    CHECK(uploads_on_server() == (count == 1 ? 1 : 2));  // The parts were gone on with.
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

TEST_CASE_METHOD(TusServerFixture, "tus_upload: a signal that ends it is told") {
  const auto file = make_file("film.bin", test_text(7, k_large));
  for (const int signal : {SIGINT, SIGTERM}) {
    const auto has_begun = [&] { return kept().size() == 1 && offset_of(kept_ids().at(0)) > 0; };
    CHECK(kill_when(file, {}, has_begun, signal) ==
          "tus_upload: stopped; run it again, and it goes on\n");
    const ExampleResult result = send(file, url());
    check_sent_after_all(result, file);
    CHECK_THAT(result.errors, Matches(k_going_on));
  }
  CHECK(uploads_on_server() == 2);
}

TEST_CASE_METHOD(TusServerFixture, "tus_upload: a bar shows progress on a terminal") {
  const auto file = make_file("film.bin", test_text(1, 5'000'000));
  const Terminal terminal;
  ExampleProgram program(folder.path(), "tus_upload", {file.string(), url()}, terminal.name());
  const std::string drawn = terminal.read_until("");
  check_sent(program.wait(), file);
  CHECK_THAT(drawn, Contains("\rreading ") && Contains("\rsending "));
  CHECK(drawn.ends_with("\r\033[K"));
}

TEST_CASE_METHOD(TusServerFixture, "tus_upload: a signal leaves the line of the bar") {
  const auto file = make_file("film.bin", test_text(1, k_large));
  const Terminal terminal;
  ExampleProgram program(folder.path(), "tus_upload",
                         {"--chunk-bytes", "64KiB", file.string(), url()}, terminal.name());
  terminal.read_until("\rsending ");
  ::kill(program.pid(), SIGINT);
  const std::string drawn = terminal.read_until("");
  CHECK(program.wait().exit_code == -1);
  CHECK_THAT(drawn, EndsWith("\r\ntus_upload: stopped; run it again, and it goes on\r\n"));
}

TEST_CASE_METHOD(TusUploadFixture, "tus_upload: wrong arguments are refused") {
  const std::string url = "http://127.0.0.1:1/files/";
  const auto file = make_file("film.bin", "bytes");
  check_error(send(file, url, {"--chunks=65536"}), 2, "--chunks");
  check_error(send(file, url, {"--chunk-bytes", "65535"}), 2, "--chunk-bytes");
  check_error(send(file, url, {"--chunk-bytes", "33554433"}), 2, "--chunk-bytes");
  check_error(send(file, url, {"--chunk-bytes", "33MiB"}), 2, "--chunk-bytes");
  check_error(send(file, url, {"--chunk-bytes", "1MX"}), 2, "--chunk-bytes");
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
  check_error(send(folder.path(), url), 1, "not a regular file: " + folder.path().string());
  check_error(send("/dev/null", url), 1, "not a regular file: /dev/null");
  check_error(send(file, url, {"--url-store", folder / "missing/urls.json"}), 1,
              "No such file or directory\n");
  CHECK_FALSE(std::filesystem::exists(folder / ".tus_urls.json"));

  const ExampleResult help = run_example(folder.path(), "tus_upload", {"--help"});
  CHECK(help.exit_code == 0);
  CHECK_THAT(help.output, Contains("--url-store") && Contains("--parallel") && Contains("BYTES") &&
                              Contains("URL"));
  CHECK(help.errors.empty());
}

}  // namespace
}  // namespace tidemark::test
