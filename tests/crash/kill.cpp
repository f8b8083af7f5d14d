// Kills processes that write to a storage, at random moments, and starts them again on the same
// folder; when all are gone, a checker verifies from the files what they were told.

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <string>
#include <thread>

#include <CLI/CLI.hpp>

#include "../sim/random.hpp"
#include "../temporary_folder.hpp"
#include "checker.hpp"
#include "writers.hpp"

namespace tidemark::crash {
namespace {

/// One round ends when all processes are gone.
class Round {
 public:
  Round(Writers& writers, sim::Random& random, std::uint64_t kills_left)
      : writers_(writers), random_(random), kills_left_(kills_left) {}

  /// Gives the number of kills.
  std::uint64_t run() {
    writers_.next_round();
    for (unsigned i = 0; i < Writers::k_processes; ++i) writers_.start(i);
    for (std::uint64_t more = random_.between(1, 4); more > 0 && kills_ < kills_left_; --more) {
      wait_for_a_moment();
      kill_some();
      if (more > 1) start_again();
    }
    end();
    return kills_;
  }

 private:
  void wait_for_a_moment() {
    // Not always just after an acknowledgement. Now and then a process has hardly begun.
    const std::uint64_t most_us = random_.once_in(6) ? 50'000 : 3000;
    if (most_us == 3000) writers_.wait_for(random_.between(1, 80));
    std::this_thread::sleep_for(std::chrono::microseconds(random_.below(most_us)));
  }

  /// All at once, or one, and then the others go on.
  void kill_some() {
    const bool all = random_.once_in(2);
    const std::uint64_t only = random_.below(Writers::k_processes);
    for (unsigned i = 0; i < Writers::k_processes; ++i) {
      if (writers_.is_running(i) && (all || i == only)) writers_.kill(i);
    }
    ++kills_;
    if (!all && is_any_running()) writers_.wait_for(random_.between(1, 20));
  }

  void start_again() {
    for (unsigned i = 0; i < Writers::k_processes; ++i) {
      if (!writers_.is_running(i)) writers_.start(i);
    }
  }

  /// Whoever still runs closes its storage.
  void end() {
    for (unsigned i = 0; i < Writers::k_processes; ++i) {
      if (writers_.is_running(i)) writers_.stop(i);
    }
  }

  bool is_any_running() const {
    for (unsigned i = 0; i < Writers::k_processes; ++i) {
      if (writers_.is_running(i)) return true;
    }
    return false;
  }

  Writers& writers_;
  sim::Random& random_;
  const std::uint64_t kills_left_;
  std::uint64_t kills_ = 0;
};

int run(std::uint64_t wanted, std::uint64_t seed, const std::filesystem::path& parent) {
  const test::TemporaryFolder folder(parent);
  std::filesystem::create_directory(folder / "released");
  sim::Random random(seed);
  Checker checker(folder.path());
  Writers writers(checker, folder.path(), seed << 32, true);
  std::uint64_t kills = 0;
  std::uint64_t violations = 0;
  const auto report = [&](const std::string& text) {
    std::printf("after %ju kills: %s\n", static_cast<std::uintmax_t>(kills), text.c_str());
    ++violations;
  };
  while (kills < wanted && violations == 0) {
    try {
      kills += Round(writers, random, wanted - kills).run();
    } catch (const Failure& failure) {
      report(failure.what());
      writers.kill_all();
    }
    for (const std::string& text : checker.check()) report(text);
    std::fflush(stdout);
  }
  std::printf("%ju kills, %ju acknowledgements, %ju violations\n",
              static_cast<std::uintmax_t>(kills),
              static_cast<std::uintmax_t>(checker.acknowledgements()),
              static_cast<std::uintmax_t>(violations));
  return violations == 0 ? 0 : 1;
}

}  // namespace
}  // namespace tidemark::crash

int main(int argc, char** argv) try {
  std::uint64_t kills = 50;
  std::uint64_t seed = 1;
  std::string parent = std::filesystem::temp_directory_path();
  CLI::App app("Kills writers at random moments and checks what they were promised");
  app.add_option("--kills", kills, "How many times")->capture_default_str();
  app.add_option("--seed", seed, "Of all chance but the system's")->capture_default_str();
  app.add_option("--folder", parent, "Where the storage is put")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  return tidemark::crash::run(kills, seed, parent);
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
