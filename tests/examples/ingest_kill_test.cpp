// ingest is killed and run again: at moments that its files show, never after a time.

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <optional>
#include <random>
#include <sched.h>
#include <string>
#include <string_view>
#include <system_error>

#include "../catch.hpp"
#include "../sanitizers.hpp"
#include "../storage/helper_program.hpp"
#include "ingest_fixture.hpp"

namespace tidemark::test {
namespace {

namespace fs = std::filesystem;

constexpr int k_kills = k_address_sanitizer || k_thread_sanitizer ? 6 : 16;

using Catch::Matchers::Contains;
using Catch::Matchers::StartsWith;

constexpr std::uint64_t k_size = (std::uint64_t{32} << 20) + 12'345;

std::uint64_t size_of(const fs::path& file) {
  std::error_code error;
  const std::uintmax_t size = fs::file_size(file, error);
  return error ? 0 : size;
}

fs::file_time_type changed_at(const fs::path& path) {
  std::error_code error;
  const fs::file_time_type time = fs::last_write_time(path, error);
  return error ? fs::file_time_type::min() : time;
}

std::function<bool()> when_changed(const fs::path& path) {
  return [path, before = changed_at(path)] { return changed_at(path) != before; };
}

struct KillFixture : IngestFixture {
  const std::string text = test_text(7, k_size);
  const fs::path file = make_file("film.bin", text);
  const std::string line = "film " + std::to_string(k_size) + " sha256=" + sha256_of(file) + '\n';

  ExampleResult ingest_film() { return ingest(file, {"--id", "film"}); }

  std::uint64_t committed() const { return row_offset(database, "film").value_or(0); }

  /// Starts ingest and kills it once `reached`. False when it was done before that.
  bool kill_when(const std::function<bool()>& reached) {
    ExampleProgram program(
        folder.path(), "ingest",
        {"--data", data.string(), "--id", "film", "--chunk-bytes", "65536", file.string()});
    while (!program.has_ended() && !reached()) ::sched_yield();
    program.kill();
    const ExampleResult result = program.wait();
    if (result.exit_code < 0) return true;
    INFO(result.errors);
    REQUIRE(result.errors.empty());
    REQUIRE(result.output == line);
    return false;
  }

  /// What holds at every moment: bytes below the offset are in the file, and are the right ones.
  void check_prefix() const {
    const std::uint64_t offset = committed();
    if (offset == 0) return;
    const std::string bytes = contents(stored("film"));
    REQUIRE(bytes.size() >= offset);
    REQUIRE(std::string_view(bytes).substr(0, offset) == std::string_view(text).substr(0, offset));
  }

  /// An event at which to kill, of a run that starts now.
  std::function<bool()> choose_event(std::mt19937& random) {
    const std::uint64_t target = committed() + 1 + random() % (std::uint64_t{12} << 20);
    switch (random() % 8) {
      case 0:
        return [this] { return fs::exists(database); };
      case 1:
        return when_changed(data / "uploads");
      case 2:
        return when_changed(database);
      case 3:
        return when_changed(database.string() + "-wal");
      case 4:
        return when_changed(stored("film"));
      case 5:
        return [this, target] { return size_of(stored("film")) >= target; };
      default:
        return [this, target] { return committed() >= target; };
    }
  }
};

TEST_CASE_METHOD(KillFixture, "killed at any moment and run again, it goes on and ends right") {
  std::mt19937 random(1);  // Always the same, but moments differ all the same.
  int kills = 0;
  int resumptions = 0;
  for (int round = 0; kills < k_kills || resumptions < k_kills / 3; ++round) {
    INFO("round " << round << ", kills " << kills);
    REQUIRE(round < 50);
    data = folder / ("data" + std::to_string(round));
    database = data / "uploads.db";
    const fs::path second_name = folder / ("held" + std::to_string(round));
    std::uint64_t offset = 0;
    while (kill_when(choose_event(random))) {
      ++kills;
      if (offset > 0) ++resumptions;
      REQUIRE(committed() >= offset);
      offset = committed();
      check_prefix();
      // Keeps the file's inode, so that one made anew is told apart.
      if (offset > 0 && !fs::exists(second_name)) fs::create_hard_link(stored("film"), second_name);
    }
    CHECK(ingest_film().output == line);
    REQUIRE(contents(stored("film")) == text);
    CHECK(committed() == k_size);
    if (fs::exists(second_name)) CHECK(fs::equivalent(second_name, stored("film")));
    fs::remove_all(data);
    fs::remove(second_name);
  }
}

TEST_CASE_METHOD(KillFixture, "what a killed run has committed is compared, not written again") {
  constexpr std::uint64_t k_half = k_size / 2;
  while (committed() < k_half) {
    REQUIRE(kill_when([&] { return committed() >= k_half; }));
  }
  const std::uint64_t offset = committed();
  REQUIRE(offset < k_size);
  // Whoever began anew would write this byte over.
  const auto put = [&](char byte) {
    std::fstream bytes(stored("film"), std::ios::in | std::ios::out | std::ios::binary);
    bytes.seekp(1'000'000);
    bytes.put(byte);
  };
  put(static_cast<char>(text[1'000'000] ^ 1));
  const ExampleResult refused = ingest_film();
  CHECK(refused.exit_code == 1);
  CHECK(refused.errors ==
        "ingest: the upload holds other bytes than the file: choose another --id\n");
  CHECK(committed() == offset);
  CHECK(contents(stored("film")).at(1'000'000) == static_cast<char>(text[1'000'000] ^ 1));
  put(text[1'000'000]);
  CHECK(ingest_film().output == line);
  CHECK(committed() == k_size);
}

TEST_CASE_METHOD(KillFixture, "another implementation continues what a killed run left") {
  REQUIRE(kill_when([&] { return committed() > 0; }));
  const std::string offset = std::to_string(committed());
  HelperProgram foreign("foreign_writer", {data.string()});
  CHECK_THAT(foreign.ask("append film " + offset + " 7 3000001"), StartsWith("ok "));
  REQUIRE(kill_when([&, from = committed()] { return committed() > from; }));
  check_prefix();
  const std::string rest = std::to_string(k_size - committed());
  CHECK_THAT(foreign.ask("append film " + std::to_string(committed()) + " 7 " + rest),
             StartsWith("ok "));
  CHECK_THAT(foreign.ask("get film"), Contains("\t1\t{\"filename\": \"film.bin\"}"));
  CHECK(ingest_film().output == line);
}

TEST_CASE_METHOD(KillFixture, "killed while another has the database, it has committed no more") {
  REQUIRE(kill_when([&] { return committed() > 0; }));
  HelperProgram foreign("foreign_writer", {data.string()});
  std::optional<std::uint64_t> offset;
  // It writes on only after it has committed something.
  const auto writes = when_changed(stored("film"));
  REQUIRE(kill_when([&] {
    if (!offset && writes()) {
      REQUIRE(foreign.ask("begin") == "ok");
      offset = committed();
    }
    // It has written all that it writes before it waits for a commit.
    return offset && size_of(stored("film")) >= *offset + (std::uint64_t{8} << 20);
  }));
  CHECK(committed() == offset);
  REQUIRE(foreign.ask("commit") == "ok");
  check_prefix();
  CHECK(ingest_film().output == line);
}

}  // namespace
}  // namespace tidemark::test
