// Runs simulated stories until a promise is broken, or time or seeds are at their end.

#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <initializer_list>
#include <random>
#include <string>
#include <unistd.h>
#include <vector>

#include <CLI/CLI.hpp>

#include "fault_sweep.hpp"
#include "world.hpp"

namespace tidemark::sim {
namespace {

struct Options {
  std::vector<std::string> seeds{"1..1000"};
  double minutes = 1;
  bool fresh = false;
  bool verbose = false;
  bool until_violation = false;
  bool each_fault = false;
};

struct Range {
  std::uint64_t first;
  std::uint64_t last;
};

Range parse(const std::string& text) {
  const std::size_t dots = text.find("..");
  const std::uint64_t first = std::stoull(text);
  return {first, dots == std::string::npos ? first : std::stoull(text.substr(dots + 2))};
}

std::vector<Range> ranges_of(const Options& options) {
  if (options.fresh) {
    const std::uint64_t first = std::random_device()();
    return {{first << 20, UINT64_MAX}};
  }
  std::vector<Range> ranges;
  for (const std::string& text : options.seeds) ranges.push_back(parse(text));
  return ranges;
}

// No story takes longer, under sanitizers neither: one that does goes round in a circle.
constexpr unsigned k_seconds_for_a_seed = 300;

std::string ending;

/// A story that ends the program (an assertion, a bad access, a circle) tells its seed all the
/// same.
void tell_seed(int signal) {
  const ssize_t told = ::write(STDOUT_FILENO, ending.data(), ending.size());
  static_cast<void>(told);
  std::raise(signal);  // Its usual end, since the handler is gone.
}

void tell_seed_at_the_end() {
  struct sigaction action = {};
  action.sa_handler = tell_seed;
  action.sa_flags = static_cast<int>(SA_RESETHAND);
  for (const int signal : {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGALRM}) {
    ::sigaction(signal, &action, nullptr);
  }
}

int run_stories(const Options& options) {
  tell_seed_at_the_end();
  const auto end =
      std::chrono::steady_clock::now() + std::chrono::duration<double>(60 * options.minutes);
  Totals totals;
  std::uint64_t violations = 0;
  const auto goes_on = [&] {
    return std::chrono::steady_clock::now() < end && !(options.until_violation && violations > 0);
  };
  for (const Range& range : ranges_of(options)) {
    for (std::uint64_t seed = range.first; seed <= range.last && goes_on(); ++seed) {
      ending = "seed " + std::to_string(seed) + ": it ended the simulator\n";
      ::alarm(k_seconds_for_a_seed);
      try {
        run_seed(seed, options.verbose, totals);
      } catch (const std::exception& error) {
        ++violations;
        std::printf("seed %ju: %s\n", static_cast<std::uintmax_t>(seed), error.what());
        std::fflush(stdout);
      }
    }
  }
  std::printf("%ju kills\n%ju seeds, %ju power cuts, %ju operations, %ju violations\n",
              static_cast<std::uintmax_t>(totals.kills), static_cast<std::uintmax_t>(totals.seeds),
              static_cast<std::uintmax_t>(totals.cuts),
              static_cast<std::uintmax_t>(totals.operations),
              static_cast<std::uintmax_t>(violations));
  return violations == 0 ? 0 : 1;
}

int let_each_call_fail() {
  const FaultSweep sweep = run_fault_sweep();
  std::printf(
      "%ju operations, %ju faults, %ju violations\n", static_cast<std::uintmax_t>(sweep.operations),
      static_cast<std::uintmax_t>(sweep.faults), static_cast<std::uintmax_t>(sweep.violations));
  return sweep.violations == 0 ? 0 : 1;
}

}  // namespace
}  // namespace tidemark::sim

int main(int argc, char** argv) {
  tidemark::sim::Options options;
  CLI::App app("Runs the storage on a simulated computer, cuts its power, and checks its promises");
  app.add_option("--seeds", options.seeds, "FIRST..LAST, or several, with commas between")
      ->delimiter(',')
      ->capture_default_str();
  app.add_flag("--fresh", options.fresh, "Takes seeds that nobody has tried");
  app.add_option("--minutes", options.minutes, "Ends after this time in any case")
      ->capture_default_str();
  app.add_flag("--verbose", options.verbose, "Prints what the storage logs");
  app.add_flag("--until-violation", options.until_violation, "Ends with the first");
  app.add_flag("--each-fault", options.each_fault,
               "Instead lets each call of each operation fail, one at a time");
  CLI11_PARSE(app, argc, argv);
  return options.each_fault ? tidemark::sim::let_each_call_fail()
                            : tidemark::sim::run_stories(options);
}
