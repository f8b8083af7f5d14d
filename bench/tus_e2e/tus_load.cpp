// tus_load: a client that costs little beside the server that it loads, for any tus server.

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <random>
#include <regex>
#include <stdexcept>
#include <string>
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <boost/asio/ip/address.hpp>

#include "load.hpp"

namespace tidemark::bench {

std::vector<char> random_bytes(std::size_t bytes, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<char> made(bytes);
  for (char& byte : made) byte = static_cast<char>(random());
  return made;
}

std::string path_of(std::string_view location) {
  const std::size_t scheme = location.find("://");
  if (scheme == std::string_view::npos) return std::string(location);
  const std::size_t path = location.find('/', scheme + 3);
  return path == std::string_view::npos ? "/" : std::string(location.substr(path));
}

}  // namespace tidemark::bench

namespace {

using namespace tidemark::bench;

TusUrl parse_url(const std::string& url) {
  static const std::regex pattern(R"(http://([0-9.]+):(\d{1,5})(/.*))");
  std::smatch parts;
  if (!std::regex_match(url, parts, pattern)) {
    throw std::invalid_argument("not of the form http://ADDRESS:PORT/PATH: " + url);
  }
  const auto port = static_cast<unsigned short>(std::stoul(parts[2]));
  return {{boost::asio::ip::make_address(parts[1].str()), port},
          parts[1].str() + ":" + parts[2].str(),
          parts[3]};
}

/// Every connection holds a descriptor.
void raise_descriptor_limit() {
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

void show(const SteadyLoad& load) {
  const SteadyResult result = run_steady_load(load);
  const double patches = static_cast<double>(result.patches);
  std::printf(
      "{\"connections\":%u,\"chunk_bytes\":%zu,\"seconds\":%.3f,\"patches\":%.0f,"
      "\"patches_per_s\":%.1f,\"mb_per_s\":%.2f,\"p50_ms\":%.3f,\"p99_ms\":%.3f,"
      "\"load_cpu_s\":%.3f}\n",
      load.connections, load.chunk_bytes, result.seconds, patches, patches / result.seconds,
      patches * static_cast<double>(load.chunk_bytes) / result.seconds / 1e6, result.p50_ms,
      result.p99_ms, result.cpu_seconds);
}

int show(const MixedLoad& load) {
  MixedResult result = run_mixed_load(load);
  std::ranges::sort(result.take_overs);
  const auto take_over_ms = [&](std::size_t percent) {
    const std::size_t at = (result.take_overs.size() - 1) * percent / 100;
    return std::chrono::duration<double, std::milli>(result.take_overs[at]).count();
  };
  if (!result.take_overs.empty()) {
    std::printf("take-over: p50 %.1f ms, p99 %.1f ms, longest %.1f ms\n", take_over_ms(50),
                take_over_ms(99), take_over_ms(100));
    std::fflush(stdout);
  }
  std::cout << result.uploads << " uploads, " << result.bytes << " bytes, " << result.resets
            << " resets, " << result.take_overs.size() << " take-overs, " << result.errors
            << " errors\n";
  return result.errors == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

}  // namespace

int main(int argc, char** argv) try {
  CLI::App app("Loads a tus server, and measures or checks it");
  std::string url;
  SteadyLoad steady;
  MixedLoad mixed;
  app.add_option("url", url, "Where uploads are created: http://ADDRESS:PORT/PATH")->required();
  CLI::Option* connections = app.add_option("--connections", steady.connections)
                                 ->check(CLI::Range(1, 10000))
                                 ->capture_default_str();
  app.add_option("--chunk-bytes", steady.chunk_bytes)
      ->check(CLI::Range(1, 64 << 20))
      ->capture_default_str();
  app.add_option("--seconds", steady.seconds)->check(CLI::PositiveNumber)->capture_default_str();
  bool mix = false;
  CLI::Option* mix_flag =
      app.add_flag("--mixed", mix, "Resets, take-overs and deletes; 2000 connections");
  app.add_option("--minutes", mixed.minutes, "Of the mix")
      ->check(CLI::PositiveNumber)
      ->needs(mix_flag)
      ->capture_default_str();
  app.add_option("--seed", mixed.seed, "Of the mix")->needs(mix_flag)->capture_default_str();
  CLI11_PARSE(app, argc, argv);

  raise_descriptor_limit();
  steady.url = mixed.url = parse_url(url);
  if (*connections) mixed.connections = steady.connections;
  if (mix) return show(mixed);
  show(steady);
  return EXIT_SUCCESS;
} catch (const std::exception& error) {
  std::cerr << "tus_load: " << error.what() << '\n';
  return EXIT_FAILURE;
}
