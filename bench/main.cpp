// tidemark_bench: runs a workload on each baseline that was asked for and prints the figures.

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fcntl.h>
#include <filesystem>
#include <iostream>
#include <map>
#include <stdexcept>
#include <string>
#include <sys/resource.h>
#include <sys/wait.h>
#include <system_error>
#include <unistd.h>
#include <utility>
#include <vector>

#include <CLI/CLI.hpp>
#include <boost/json.hpp>

#include "bench.hpp"

namespace {

using namespace tidemark::bench;
using tidemark::DriverKind;
using tidemark::Durability;

using Baseline = BenchResult (*)(const AppendWorkload&);

const std::map<std::string, Baseline> k_baselines = {{"engine", &run_engine_append},
                                                     {"raw", &run_raw_append}};

const std::map<std::string, Durability> k_durabilities = {
    {"full", Durability::full}, {"ordered", Durability::ordered}, {"none", Durability::none}};

const std::map<std::string, DriverKind> k_drivers = {{"uring", DriverKind::uring},
                                                     {"threads", DriverKind::threads}};

const std::map<std::string, RawMode> k_raw_modes = {{"fdatasync", RawMode::fdatasync},
                                                    {"dsync", RawMode::dsync},
                                                    {"dontcache", RawMode::dontcache},
                                                    {"direct", RawMode::direct},
                                                    {"direct-alloc", RawMode::direct_alloc},
                                                    {"syncfs", RawMode::syncfs},
                                                    {"none", RawMode::none}};

[[noreturn]] void fail(const char* what) {
  throw std::system_error(errno, std::generic_category(), what);
}

/// As much as fits a quarter of the free space with all uploads, but no more than 256 MiB.
std::size_t choose_upload_bytes(const AppendWorkload& options) {
  constexpr std::uintmax_t k_most_bytes = 256 << 20;
  const std::uintmax_t free_bytes = std::filesystem::space(options.data_dir).available;
  const std::uintmax_t bytes = std::min(k_most_bytes, free_bytes / 4 / options.uploads);
  const std::uintmax_t chunks = bytes / options.chunk_bytes;
  if (chunks == 0) throw std::runtime_error("too little free space for so many uploads");
  return chunks * options.chunk_bytes;
}

/// A new folder that is removed with everything in it.
class TemporaryFolder {
 public:
  explicit TemporaryFolder(const std::filesystem::path& parent)
      : path_((parent / "tidemark_bench.XXXXXX").string()) {
    if (::mkdtemp(path_.data()) == nullptr) fail(path_.c_str());
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

/// Sends the figures to the parent; they are plain numbers.
template <class Result, class Options>
[[noreturn]] void run_in_child(Result (*workload)(const Options&), const Options& options,
                               int pipe) {
  int status = EXIT_FAILURE;
  try {
    const Result result = workload(options);
    if (::write(pipe, &result, sizeof result) == sizeof result) status = EXIT_SUCCESS;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "tidemark_bench: %s\n", error.what());
  }
  std::_Exit(status);
}

template <class Result>
struct Finished {
  Result result;
  double peak_rss_kib;
};

/// Runs `workload` in a process of its own, which makes its peak of memory its own.
template <class Result, class Options>
Finished<Result> run_apart(Result (*workload)(const Options&), const Options& options) {
  std::fflush(stdout);  // Else the child would inherit what is buffered.
  int pipe[2];
  if (::pipe2(pipe, O_CLOEXEC) != 0) fail("pipe");
  const pid_t child = ::fork();
  if (child < 0) fail("fork");
  if (child == 0) run_in_child(workload, options, pipe[1]);
  ::close(pipe[1]);
  // A keyboard interrupt ends the child; this process then removes its files.
  std::signal(SIGINT, SIG_IGN);
  Result result;
  const ssize_t received = ::read(pipe[0], &result, sizeof result);
  ::close(pipe[0]);
  int status = 0;
  rusage usage{};
  if (::wait4(child, &status, 0, &usage) != child) fail("wait4");
  if (received != sizeof result || status != 0) throw std::runtime_error("the workload failed");
  return {result, static_cast<double>(usage.ru_maxrss)};
}

boost::json::object to_json(const BenchResult& result) {
  return {{"ops_per_s", result.ops_per_s},
          {"mb_per_s", result.mb_per_s},
          {"p50_us", result.p50_us},
          {"p99_us", result.p99_us},
          {"cpu_s_per_gb", result.cpu_s_per_gb},
          {"peak_rss_kib", result.peak_rss_kib}};
}

void print_row(const std::string& name, const BenchResult& result) {
  std::printf("%-8s %10.0f %10.1f %10.0f %10.0f %10.3f %10.0f\n", name.c_str(), result.ops_per_s,
              result.mb_per_s, result.p50_us, result.p99_us, result.cpu_s_per_gb,
              result.peak_rss_kib);
}

template <typename T>
std::string names(const std::map<std::string, T>& values) {
  std::string text;
  for (const auto& [name, value] : values) text += (text.empty() ? "" : "|") + name;
  return text;
}

/// Every upload holds a descriptor.
void raise_descriptor_limit() {
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

BenchResult run_append(Baseline baseline, AppendWorkload options) {
  const TemporaryFolder folder(options.data_dir);
  options.data_dir = folder.path();
  auto [result, peak_rss_kib] = run_apart(baseline, options);
  result.peak_rss_kib = peak_rss_kib;
  return result;
}

void show_appends(AppendWorkload options, const std::vector<std::string>& baselines, bool json) {
  raise_descriptor_limit();
  if (options.raw_mode && options.durability != Durability::full) {
    throw std::runtime_error("--raw-mode is for --durability full");
  }
  options.upload_bytes = choose_upload_bytes(options);
  boost::json::object all;
  if (!json) {
    std::printf("%-8s %10s %10s %10s %10s %10s %10s\n", "baseline", "ops/s", "MB/s", "p50 us",
                "p99 us", "cpu s/GB", "rss KiB");
  }
  for (const std::string& name : baselines) {
    const BenchResult result = run_append(k_baselines.at(name), options);
    if (json) {
      all[name] = to_json(result);
    } else {
      print_row(name, result);
    }
  }
  if (json) std::cout << boost::json::serialize(all) << '\n';
}

void show_waiters(WaitersWorkload options, bool json) {
  raise_descriptor_limit();
  options.appends.upload_bytes = choose_upload_bytes(options.appends);
  const TemporaryFolder folder(options.appends.data_dir);
  options.appends.data_dir = folder.path();
  const WaitersResult result = run_apart(&run_waiters, options).result;
  if (json) {
    const boost::json::object all = {{"alone_ops_per_s", result.alone_ops_per_s},
                                     {"with_waiters_ops_per_s", result.with_waiters_ops_per_s},
                                     {"ratio", result.ratio}};
    std::cout << boost::json::serialize(all) << '\n';
  } else {
    std::printf("alone %.0f ops/s, with %u waiters %.0f ops/s, ratio %.3f\n",
                result.alone_ops_per_s, options.waiters, result.with_waiters_ops_per_s,
                result.ratio);
  }
}

/// The options that the workloads on uploads share.
void add_options(CLI::App& command, AppendWorkload& options, bool& json) {
  command.add_option("--uploads", options.uploads)
      ->check(CLI::Range(1, 10000))
      ->capture_default_str();
  command.add_option("--chunk-bytes", options.chunk_bytes)
      ->check(CLI::Range(1, 64 << 20))
      ->capture_default_str();
  command.add_option("--seconds", options.seconds)
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command.add_option("--durability", options.durability)
      ->transform(CLI::CheckedTransformer(k_durabilities))
      ->option_text(names(k_durabilities));
  command.add_option("--driver", options.driver, "Of the engine")
      ->transform(CLI::CheckedTransformer(k_drivers))
      ->option_text(names(k_drivers));
  command
      .add_option("--data", options.data_dir, "Folder for the data, which is removed at the end")
      ->check(CLI::ExistingDirectory);
  command.add_flag("--json", json);
}

}  // namespace

int main(int argc, char** argv) try {
  CLI::App app("Measures tidemark beside what the machine can do");
  app.require_subcommand(1);
  bool json = false;

  AppendWorkload appends;
  std::vector<std::string> baselines;
  for (const auto& [name, baseline] : k_baselines) baselines.push_back(name);
  CLI::App* append = app.add_subcommand("append", "Uploads that append chunk after chunk at once");
  add_options(*append, appends, json);
  append->add_option("--baseline", baselines, "May be given more than once; all by default")
      ->check(CLI::IsMember(k_baselines))
      ->option_text(names(k_baselines));
  append->add_option("--raw-mode", appends.raw_mode, "How raw makes data stable")
      ->transform(CLI::CheckedTransformer(k_raw_modes))
      ->option_text(names(k_raw_modes));
  append->callback([&] { show_appends(appends, baselines, json); });

  WaitersWorkload waiters;
  CLI::App* wait = app.add_subcommand(
      "waiters", "The same appends, with and without tasks that wait for other uploads' locks");
  add_options(*wait, waiters.appends, json);
  wait->add_option("--waiters", waiters.waiters)
      ->check(CLI::Range(1, 10000))
      ->capture_default_str();
  wait->add_option("--slices", waiters.slices, "With waiters, and as many without")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  wait->callback([&] { show_waiters(waiters, json); });
  CLI11_PARSE(app, argc, argv);
  return EXIT_SUCCESS;
} catch (const std::exception& error) {
  std::cerr << "tidemark_bench: " << error.what() << '\n';
  return EXIT_FAILURE;
}
