#include "options.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>

#include <CLI/CLI.hpp>

namespace tus {
namespace {

// Of received bytes that are on their way to the disk. Enough to keep a disk busy, and little
// enough that the server's memory stays small.
constexpr std::size_t k_bytes_in_flight = std::size_t{24} << 20;

// While another process has the database locked. Short: a server that leaves waits for it.
constexpr std::chrono::seconds k_commit_timeout{1};

// While another process writes the upload: one that leaves takes 5 s, and clients do not wait long.
constexpr std::chrono::seconds k_lock_timeout{10};

struct Arguments {
  std::string listen = "127.0.0.1:8080";
  std::string data = "data";
  std::string base_path = "/files/";
  std::uint64_t max_size = 0;
  std::uint64_t quota = 0;
  double expire_after = 0;
  unsigned threads = 1;
  tidemark::DriverKind driver = tidemark::DriverKind::automatic;
  tidemark::Durability durability = tidemark::Durability::full;
  std::size_t max_connections = 4096;
  unsigned idle_timeout = 60;
};

std::string check_listen(const std::string& text) {
  const std::size_t colon = text.rfind(':');
  const std::string port = colon == text.npos ? "" : text.substr(colon + 1);
  std::uint16_t number = 0;
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), number);
  const bool good =
      colon != 0 && !port.empty() && error == std::errc() && end == port.data() + port.size();
  return good ? "" : "not HOST:PORT";
}

std::string check_base_path(const std::string& text) {
  const bool good = text.size() > 2 && text.front() == '/' && text.back() == '/' &&
                    text.find("//") == text.npos &&
                    text.find_first_not_of(
                        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                        "0123456789-_./") == text.npos;
  return good ? "" : "must look like /files/";
}

/// CLI11's own transformer says a map in its message, and takes the numbers of an enumeration.
template <class Value>
CLI::Validator one_of(const std::map<std::string, Value>& values) {
  std::string names;
  for (const auto& [name, value] : values) names += (names.empty() ? "" : ",") + name;
  const auto to_number = [values, names](std::string& text) {
    const auto found = values.find(text);
    if (found == values.end()) return "'" + text + "' is none of " + names;
    text = std::to_string(static_cast<int>(found->second));
    return std::string();
  };
  return CLI::Validator(to_number, '{' + names + '}', "");
}

void declare(CLI::App& app, Arguments& to) {
  constexpr std::uint64_t k_max_bytes = INT64_MAX;
  const std::map<std::string, tidemark::DriverKind> drivers{
      {"automatic", tidemark::DriverKind::automatic},
      {"uring", tidemark::DriverKind::uring},
      {"threads", tidemark::DriverKind::threads}};
  const std::map<std::string, tidemark::Durability> durabilities{
      {"full", tidemark::Durability::full}, {"none", tidemark::Durability::none}};
  app.add_option("--listen", to.listen, "HOST:PORT to listen on; port 0: any that is free")
      ->capture_default_str()
      ->check(check_listen);
  app.add_option("--data", to.data, "Folder of uploads.db and uploads/, made when missing")
      ->capture_default_str();
  app.add_option("--base-path", to.base_path, "Where uploads are created, and live")
      ->capture_default_str()
      ->check(check_base_path);
  app.add_option("--max-size", to.max_size, "Most bytes of one upload, as 500MB or 2GiB")
      ->type_name("BYTES")
      ->transform(CLI::AsSizeValue(true).description(""))
      ->check(CLI::Range(std::uint64_t{1}, k_max_bytes).description(""));
  app.add_option(
         "--quota", to.quota,
         "Most bytes that unfinished uploads may announce in all, each at its creation; finished "
         "ones do not count")
      ->type_name("BYTES")
      ->transform(CLI::AsSizeValue(true).description(""))
      ->check(CLI::Range(std::uint64_t{1}, k_max_bytes).description(""));
  app.add_option("--expire-after", to.expire_after,
                 "Time after its creation at which an unfinished upload is deleted, even while it "
                 "is sent, as "
                 "90 (seconds), 30m, 12h or 7d")
      ->transform(CLI::AsNumberWithUnit(
                      std::map<std::string, double>{{"s", 1}, {"m", 60}, {"h", 3600}, {"d", 86400}},
                      CLI::AsNumberWithUnit::CASE_SENSITIVE)
                      .description(""))
      ->type_name("TIME")
      ->check(CLI::Range(1.0, 1e9).description(""));
  app.add_option("--threads", to.threads, "Threads that serve connections")
      ->capture_default_str()
      ->check(CLI::Range(1, 64));
  app.add_option("--driver", to.driver, "How files are read and written")
      ->transform(one_of(drivers))
      ->default_str("automatic");
  app.add_option("--durability", to.durability,
                 "What an answer promises: full: the bytes survive a power cut; none: nothing")
      ->transform(one_of(durabilities))
      ->default_str("full");
  app.add_option("--max-connections", to.max_connections, "More are answered with 503")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000000));
  app.add_option("--idle-timeout", to.idle_timeout,
                 "Seconds without a byte, or with a trickle of less than 256 bytes a second, after "
                 "which a connection is closed")
      ->capture_default_str()
      ->check(CLI::Range(1, 86400));
}

Options to_options(const Arguments& from) {
  Options options;
  options.data = from.data;
  options.engine.driver = from.driver;
  options.engine.bytes_in_flight = k_bytes_in_flight;
  options.storage.db_path = options.data / "uploads.db";
  options.storage.upload_dir = options.data / "uploads";
  options.storage.durability = from.durability;
  options.storage.commit_timeout = k_commit_timeout;
  options.storage.lock_timeout = k_lock_timeout;
  options.service.protocol.base_path = from.base_path;
  if (from.max_size > 0) {
    options.storage.max_upload_bytes = from.max_size;
    options.service.protocol.max_size = from.max_size;
    options.finals.max_size = from.max_size;
  }
  if (from.quota > 0) {
    options.storage.max_reserved_bytes = from.quota;
    options.service.protocol.permits_deferred_length = false;
  }
  if (from.expire_after > 0) {
    options.service.expire_after = std::chrono::seconds(std::lround(from.expire_after));
    options.finals.expire_after = options.service.expire_after;
  }
  const std::size_t colon = from.listen.rfind(':');
  options.server.host = from.listen.substr(0, colon);
  if (options.server.host.starts_with('[') && options.server.host.ends_with(']')) {  // IPv6.
    options.server.host = options.server.host.substr(1, options.server.host.size() - 2);
  }
  options.server.port = static_cast<std::uint16_t>(std::stoul(from.listen.substr(colon + 1)));
  options.server.threads = from.threads;
  options.server.max_connections = from.max_connections;
  options.server.limits.idle_timeout = std::chrono::seconds(from.idle_timeout);
  options.server.limits.header_timeout =
      std::min(options.server.limits.header_timeout, options.server.limits.idle_timeout);
  return options;
}

}  // namespace

Options parse_options(int argc, char** argv) {
  Arguments arguments;
  CLI::App app("Serves resumable uploads by the tus protocol 1.0.0.");
  app.option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  declare(app, arguments);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) std::exit(app.exit(error));  // --help
    std::fprintf(stderr, "tus_server: %s\n", error.what());
    std::exit(2);
  }
  return to_options(arguments);
}

}  // namespace tus
