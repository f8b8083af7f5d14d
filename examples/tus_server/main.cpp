// A tus server: tus_server [--listen HOST:PORT] [--data DIR] [OPTION...]
//
// Its first line on standard output is `listening on http://HOST:PORT/files/`; what it does is told
// on standard error, a line of JSON each. SIGTERM and SIGINT end it within 5 s: requests commit
// what arrived. Exits with 0 then, 1 when it could not work, 2 when it was called wrongly. Where a
// disk or another process holds a commit up, SIGALRM ends it in time.

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <exception>
#include <memory>
#include <sys/resource.h>
#include <utility>

#include <tidemark/engine/asio.hpp>
#include <tidemark/engine/engine.hpp>
#include <tidemark/engine/sync_wait.hpp>
#include <tidemark/storage/sqlite_storage.hpp>

#include "header_values.hpp"
#include "housekeeping.hpp"
#include "log.hpp"
#include "options.hpp"
#include "server.hpp"

using namespace std::chrono_literals;

namespace {

/// Each connection takes a descriptor, and the upload that it writes or reads another one; the join
/// of a final upload takes one for each part. Accepts fewer connections than the options say when
/// the system permits fewer.
void fit_to_descriptors(std::size_t& max_connections) {
  constexpr rlim_t k_others = 64;  // The database, the engine, the threads' own.
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
  const rlim_t free = limit.rlim_max - std::min(limit.rlim_max, k_others);
  const rlim_t joined = std::min<rlim_t>(tus::k_max_parts, free / 4);
  const rlim_t room = std::max<rlim_t>((free - joined) / 2, 1);
  if (room >= max_connections) return;
  max_connections = room;
  tus::log("fewer connections", {{"max_connections", room}, {"descriptors", limit.rlim_max}});
}

class EngineLog final : public tidemark::Environment {
 public:
  void log(tidemark::LogLevel /*level*/, std::string_view line) override {
    tus::log("engine", {{"what", line}});
  }
};

int serve(tus::Options options) {
  fit_to_descriptors(options.server.max_connections);
  EngineLog log;
  options.engine.environment = &log;
  tidemark::Engine engine(options.engine);
  const auto storage =
      tidemark::sync_wait(engine, tidemark::SQLiteStorage::open(engine, options.storage));
  const auto finals = tidemark::sync_wait(
      engine, tus::FinalUploads::open(*storage, options.data / "unfinished", options.finals));
  {
    tus::Service service(*storage, *finals, options.service);
    tus::Server server(service, options.server);
    tus::Housekeeping housekeeping(engine, *storage, *finals);
    const bool is_ipv6 = options.server.host.find(':') != std::string::npos;
    const std::string host = is_ipv6 ? '[' + options.server.host + ']' : options.server.host;
    std::printf("listening on http://%s:%u%s\n", host.c_str(), server.port(),
                options.service.protocol.base_path.c_str());
    std::fflush(stdout);
    server.run();
  }
  tidemark::sync_wait(engine, storage->close(500ms));
  tus::log("left");
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);  // A log whose reader has gone stops no upload either.
  try {
    return serve(tus::parse_options(argc, argv));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "tus_server: %s\n", error.what());
    return 1;
  }
}
