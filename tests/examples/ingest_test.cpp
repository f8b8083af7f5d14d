// ingest as its users call it: what it stores and says, and what it refuses.

#include <array>
#include <cstdint>
#include <cstdlib>
#include <fcntl.h>
#include <filesystem>
#include <memory>
#include <string>
#include <sys/stat.h>
#include <unistd.h>
#include <vector>

#include "../catch.hpp"
#include "../storage/helper_program.hpp"
#include "ingest_fixture.hpp"

namespace tidemark::test {
namespace {

using Catch::Matchers::Contains;
using Catch::Matchers::StartsWith;

/// One line for standard error, which names the program and holds `what`.
void check_error(const ExampleResult& result, int exit_code, const std::string& what) {
  CHECK(result.exit_code == exit_code);
  CHECK(result.output.empty());
  CHECK_THAT(result.errors, StartsWith("ingest: ") && Contains(what));
  CHECK(result.errors.find('\n') == result.errors.size() - 1);
}

std::string line_for(const std::string& id, const std::filesystem::path& file) {
  return id + ' ' + std::to_string(std::filesystem::file_size(file)) +
         " sha256=" + sha256_of(file) + '\n';
}

TEST_CASE_METHOD(IngestFixture, "a file of any size is stored, and one line says so") {
  for (const std::size_t size : {0U, 1U, 4096U, (1U << 20) + 1, (20U << 20) + 777}) {
    const auto file = make_file("film.bin", test_text(size, size));
    const std::string id = "film-" + std::to_string(size);
    const ExampleResult result = ingest(file, {"--id", id});
    CHECK(result.exit_code == 0);
    CHECK(result.output == line_for(id, file));
    CHECK(result.errors.empty());
    CHECK((contents(stored(id)) == contents(file)));
    CHECK(row_offset(database, id) == size);
  }
}

TEST_CASE_METHOD(IngestFixture, "chunks may have any size") {
  const auto file = make_file("film.bin", test_text(1, 100'003));
  const auto big = make_file("big.bin", test_text(2, 40'000'003));
  for (const char* const bytes : {"7", "4095", "4096", "65537"}) {
    const std::string id = std::string("chunks-of-") + bytes;
    CHECK(ingest(file, {"--id", id, "--chunk-bytes", bytes}).output == line_for(id, file));
  }
  const ExampleResult result = ingest(big, {"--id", "largest", "--chunk-bytes", "33554432"});
  CHECK(result.output == line_for("largest", big));
}

TEST_CASE_METHOD(IngestFixture, "runs beside each other store a file once") {
  const auto file = make_file("film.bin", test_text(1, 12'000'000));
  std::vector<std::filesystem::path> places;
  std::vector<std::unique_ptr<ExampleProgram>> programs;
  for (const char* const name : {"first", "second", "third"}) {
    places.push_back(folder / name);
    std::filesystem::create_directory(places.back());
    programs.push_back(std::make_unique<ExampleProgram>(
        places.back(), "ingest",
        std::vector<std::string>{"--data", data.string(), "--id", "film", file.string()}));
  }
  for (const auto& program : programs) {
    const ExampleResult result = program->wait();
    CHECK(result.output == line_for("film", file));
    CHECK(result.errors.empty());
  }
  CHECK((contents(stored("film")) == contents(file)));
}

TEST_CASE_METHOD(IngestFixture, "a file that is stored already is compared, and not written") {
  const auto file = make_file("film.bin", test_text(1, 9'000'000));
  const ExampleResult first = ingest(file);
  struct stat before {};
  const std::string id = first.output.substr(0, first.output.find(' '));
  REQUIRE(::stat(stored(id).c_str(), &before) == 0);
  const ExampleResult second = ingest(file);
  CHECK(second.exit_code == 0);
  CHECK(second.output == first.output);
  struct stat after {};
  REQUIRE(::stat(stored(id).c_str(), &after) == 0);
  CHECK(after.st_ino == before.st_ino);
  CHECK(after.st_mtim.tv_sec == before.st_mtim.tv_sec);
  CHECK(after.st_mtim.tv_nsec == before.st_mtim.tv_nsec);
}

TEST_CASE_METHOD(IngestFixture, "an id is made from what the file is") {
  std::filesystem::create_directory(folder / "other");
  const auto id_of = [&](const std::filesystem::path& file) {
    const ExampleResult result = ingest(file);
    CHECK(result.exit_code == 0);
    CHECK(result.errors.empty());
    return result.output.substr(0, result.output.find(' '));
  };
  const std::string one = id_of(make_file("a film.tar.gz", "one"));
  CHECK_THAT(one, StartsWith("a_film_tar_gz-"));
  std::filesystem::create_symlink(folder / "a film.tar.gz", folder / "link");
  CHECK(id_of(folder / "link") == one);
  CHECK(id_of(make_file("other/a film.tar.gz", "two")) != one);
  CHECK(id_of(make_file("a film.tar.gz", "four")) != one);
  // Names that are long, or no UTF-8.
  CHECK(id_of(make_file(std::string(255, 'x'), "")).size() == 57);
  CHECK_THAT(id_of(make_file("caf\xe9", "")), StartsWith("caf_-"));
  CHECK_THAT(id_of(make_file("--help", "")), StartsWith("--help-"));
}

TEST_CASE_METHOD(IngestFixture, "an upload that another implementation began is continued") {
  const auto file = make_file("film.bin", test_text(7, 12'000'000));
  HelperProgram foreign("foreign_writer", {data.string()});
  CHECK(foreign.ask("create film 12000000 {\"by\": \"another\"}") == "ok");
  CHECK_THAT(foreign.ask("append film 0 7 5000001"), StartsWith("ok 5000001 "));
  const ExampleResult result = ingest(file, {"--id", "film"});
  CHECK(result.output == line_for("film", file));
  CHECK(result.errors.empty());
  CHECK((contents(stored("film")) == contents(file)));
  CHECK(foreign.ask("get film") == "ok\t12000000\t12000000\t1\t{\"by\": \"another\"}\t-");

  // One whose bytes are none of the upload's yet, and too many, and one that has all.
  CHECK(foreign.ask("create new 12000000") == "ok");
  write_contents(stored("new"), std::string(12'000'001, '?'));
  CHECK(ingest(file, {"--id", "new"}).output == line_for("new", file));
  CHECK((contents(stored("new")) == contents(file)));
  CHECK(foreign.ask("create whole 12000000") == "ok");
  CHECK_THAT(foreign.ask("append whole 0 7 12000000"), StartsWith("ok 12000000 "));
  CHECK(ingest(file, {"--id", "whole"}).output == line_for("whole", file));
}

TEST_CASE_METHOD(IngestFixture, "an upload that is not of this file is left alone") {
  const auto file = make_file("film.bin", test_text(7, 3'000'000));
  HelperProgram foreign("foreign_writer", {data.string()});
  const auto check_refused = [&](const std::string& what) {
    const std::string row = foreign.ask("get film");
    const std::string bytes = contents(stored("film"));
    check_error(ingest(file, {"--id", "film"}), 1, what);
    CHECK(foreign.ask("get film") == row);
    CHECK((contents(stored("film")) == bytes));
    CHECK(foreign.ask("delete film") == "ok");
  };
  CHECK(foreign.ask("create film 3000001") == "ok");
  check_refused("upload 'film' is of 3000001 bytes, the file of 3000000: choose another --id");
  CHECK(foreign.ask("create film -1") == "ok");
  check_refused("upload 'film' is of unknown bytes");
  CHECK(foreign.ask("create film 3000000") == "ok");
  CHECK_THAT(foreign.ask("append film 0 8 2000000"), StartsWith("ok"));
  check_refused("the upload holds other bytes than the file: choose another --id");
  CHECK(foreign.ask("create film 3000000") == "ok");
  CHECK_THAT(foreign.ask("append film 0 8 3000000"), StartsWith("ok"));
  check_refused("the upload holds other bytes than the file: choose another --id");
  CHECK(foreign.ask("create film 3000000 {} 2020-01-01T00:00:00+00:00") == "ok");
  check_refused("the upload has expired");
}

TEST_CASE_METHOD(IngestFixture, "wrong arguments are refused before anything is made") {
  const auto file = make_file("film.bin", "bytes");
  check_error(ingest(file, {"--chunks", "4096"}), 2, "--chunks");
  check_error(ingest(file, {"--chunk-bytes", "0"}), 2, "--chunk-bytes");
  check_error(ingest(file, {"--chunk-bytes", "33554433"}), 2, "--chunk-bytes");
  check_error(ingest(file, {"--chunk-bytes", "4k"}), 2, "--chunk-bytes");
  check_error(ingest(file, {"--id", "../film"}), 2, "--id");
  check_error(ingest(file, {"--id", std::string(65, 'x')}), 2, "--id");
  check_error(ingest(file, {file.string()}), 2, "film.bin");
  check_error(ingest(folder / "missing"), 1, "no such file: " + (folder / "missing").string());
  check_error(ingest(folder.path()), 1, "no such file: " + folder.path().string());
  check_error(run_example(folder.path(), "ingest"), 2, "FILE");
  CHECK_FALSE(std::filesystem::exists(data));
  CHECK_FALSE(std::filesystem::exists(folder / "data"));

  const ExampleResult help = run_example(folder.path(), "ingest", {"--help"});
  CHECK(help.exit_code == 0);
  CHECK_THAT(help.output, Contains("--data") && Contains("--chunk-bytes") && Contains("--id"));
  CHECK(help.errors.empty());
}

TEST_CASE_METHOD(IngestFixture, "a data folder that cannot be written is said") {
  const auto file = make_file("film.bin", "bytes");
  data = file / "data";
  check_error(ingest(file), 1, data.string());
  data = "/proc/data";
  check_error(ingest(file), 1, data.string());

  data = folder / "data";
  std::filesystem::create_directory(data);
  make_file("data/uploads", "a file where a folder belongs");
  check_error(ingest(file), 1, (data / "uploads").string());
  std::filesystem::remove_all(data);

  std::filesystem::create_directory(data);
  make_file("data/uploads.db", "no database, but somebody's text");
  check_error(ingest(file), 1, "file is not a database");
  check_error(ingest(file), 1, database.string());
  CHECK(contents(database) == "no database, but somebody's text");
}

TEST_CASE_METHOD(IngestFixture, "a result that cannot be written is an error") {
  const auto file = make_file("film.bin", "bytes");
  const std::string command = std::string(TIDEMARK_EXAMPLES_DIR) + "/ingest --data '" +
                              data.string() + "' '" + file.string() + "' > /dev/full";
  const ProgramResult result = run_program("/bin/sh", {"-c", command});
  CHECK(result.exit_code == 1);
  CHECK(result.output == "ingest: stdout: No space left on device\n");
}

TEST_CASE_METHOD(IngestFixture, "a bar shows progress on a terminal, and is gone at the end") {
  const auto file = make_file("film.bin", test_text(1, 5'000'000));
  const int terminal = ::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
  REQUIRE(terminal >= 0);
  REQUIRE(::grantpt(terminal) == 0);
  REQUIRE(::unlockpt(terminal) == 0);
  ExampleProgram program(folder.path(), "ingest",
                         {"--data", data.string(), "--id", "film", file.string()},
                         ::ptsname(terminal));
  // Reading ends when the program has let go of its end.
  std::string drawn;
  std::array<char, 4096> piece{};
  for (ssize_t got = 1; got > 0;) {
    got = ::read(terminal, piece.data(), piece.size());
    if (got > 0) drawn.append(piece.data(), static_cast<std::size_t>(got));
  }
  ::close(terminal);
  const ExampleResult result = program.wait();
  CHECK(result.output == line_for("film", file));
  CHECK_THAT(drawn, Contains("\rchecking ") && Contains("\rstoring ") && Contains("\rverifying "));
  CHECK(drawn.ends_with("\r\033[K"));
  CHECK(std::filesystem::exists(folder / "errors.txt") == false);
}

}  // namespace
}  // namespace tidemark::test
