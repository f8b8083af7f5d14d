// Runs simulated stories until a promise is broken, or time or seeds are at their end.

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <string>

#include <CLI/CLI.hpp>

#include "world.hpp"

int main(int argc, char** argv) {
  std::string seeds = "1..1000";
  double minutes = 1;
  bool verbose = false;
  bool until_violation = false;
  CLI::App app("Runs the storage on a simulated computer, cuts its power, and checks its promises");
  app.add_option("--seeds", seeds, "FIRST..LAST")->capture_default_str();
  app.add_option("--minutes", minutes, "Ends after this time in any case")->capture_default_str();
  app.add_flag("--verbose", verbose, "Prints what the storage logs");
  app.add_flag("--until-violation", until_violation, "Ends with the first");
  CLI11_PARSE(app, argc, argv);
  const std::size_t dots = seeds.find("..");
  const std::uint64_t first = std::stoull(seeds);
  const std::uint64_t last =
      dots == std::string::npos ? first : std::stoull(seeds.substr(dots + 2));

  tidemark::sim::Totals totals;
  std::uint64_t violations = 0;
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(60 * minutes);
  for (std::uint64_t seed = first; seed <= last && std::chrono::steady_clock::now() < end; ++seed) {
    if (until_violation && violations > 0) break;
    try {
      tidemark::sim::run_seed(seed, verbose, totals);
    } catch (const std::exception& error) {
      ++violations;
      std::printf("seed %ju: %s\n", static_cast<std::uintmax_t>(seed), error.what());
      std::fflush(stdout);
    }
  }
  std::printf("%ju kills\n%ju seeds, %ju power cuts, %ju operations, %ju violations\n",
              static_cast<std::uintmax_t>(totals.kills), static_cast<std::uintmax_t>(totals.seeds),
              static_cast<std::uintmax_t>(totals.cuts),
              static_cast<std::uintmax_t>(totals.operations),
              static_cast<std::uintmax_t>(violations));
  return violations == 0 ? 0 : 1;
}
