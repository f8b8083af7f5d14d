#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>

#include <tidemark/storage/storage_stats.hpp>

namespace tus {

/// What the server counts beside its storage. Any thread.
struct Counters {
  std::atomic<std::uint64_t> connections_accepted{0};
  std::atomic<std::size_t> connections_open{0};
  std::atomic<std::uint64_t> bytes_received{0};  // Of uploads.
  std::atomic<std::uint64_t> bytes_sent{0};      // Of uploads.
  /// By the first digit of the status.
  std::array<std::atomic<std::uint64_t>, 6> answers{};
};

/// All of it as Prometheus reads it (text format 0.0.4).
std::string format_metrics(const Counters& counters, const tidemark::StorageStats& stats);

}  // namespace tus
