#pragma once

// What the two loads of tus_load agree on.

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <boost/asio/ip/tcp.hpp>

namespace tidemark::bench {

/// Where a tus server creates uploads.
struct TusUrl {
  boost::asio::ip::tcp::endpoint endpoint;
  std::string host;  ///< What the header Host says.
  std::string path;
};

/// Every connection sends PATCHes of one size, one after the other.
struct SteadyLoad {
  TusUrl url;
  unsigned connections = 16;
  std::size_t chunk_bytes = 64 * 1024;
  double seconds = 5;
};

/// The figures, of what began after every connection had created an upload.
struct SteadyResult {
  std::uint64_t patches = 0;
  double seconds = 0;  ///< Until the last answer.
  double p50_ms = 0;   ///< From the first byte of a PATCH sent to the last one of its answer read.
  double p99_ms = 0;
  double cpu_seconds = 0;  ///< Of the load itself.
};

/// Throws std::runtime_error at the first answer that is not the expected one.
SteadyResult run_steady_load(const SteadyLoad& load);

/// Every connection uploads what it likes, and is cut off, taken over and begun again at random.
struct MixedLoad {
  TusUrl url;
  unsigned connections = 2000;
  double minutes = 1;
  std::uint64_t seed = 1;
};

struct MixedResult {
  std::uint64_t uploads = 0;  ///< Completed, read back and compared.
  std::uint64_t bytes = 0;    ///< Of these.
  std::uint64_t resets = 0;
  /// For each take-over: from the new connection to the answer of its HEAD, which tells the offset
  /// that stays.
  std::vector<std::chrono::nanoseconds> take_overs;
  std::uint64_t errors = 0;  ///< That no client caused. Each is told on standard error.
};

MixedResult run_mixed_load(const MixedLoad& load);

/// `bytes` random ones, the same for the same seed.
std::vector<char> random_bytes(std::size_t bytes, std::uint64_t seed);

/// The path of a Location, which may be a whole URL.
std::string path_of(std::string_view location);

}  // namespace tidemark::bench
