#pragma once

#include <array>
#include <bit>
#include <chrono>
#include <cstddef>
#include <cstdint>

namespace tidemark {

/// How long something took, counted in classes that double: class i holds durations below 2^i
/// microseconds and not below half of that; the last one holds all that are longer. The sum is of
/// whole microseconds.
class LatencyHistogram {
 public:
  static constexpr std::size_t k_classes = 28;  // The last begins at 67 s.

  void record(std::chrono::nanoseconds duration) {
    const auto us = static_cast<std::uint64_t>(duration.count() < 0 ? 0 : duration.count() / 1000);
    const auto place = static_cast<std::size_t>(std::bit_width(us));
    ++counts_[place < k_classes ? place : k_classes - 1];
    sum_ += std::chrono::microseconds(us);
  }
  const std::array<std::uint64_t, k_classes>& counts() const { return counts_; }
  std::uint64_t total() const {
    std::uint64_t sum = 0;
    for (const std::uint64_t count : counts_) sum += count;
    return sum;
  }
  std::chrono::microseconds sum() const { return sum_; }

 private:
  std::array<std::uint64_t, k_classes> counts_{};
  std::chrono::microseconds sum_{};
};

/// What a storage has done since it was opened, and what it is doing. A snapshot: the numbers are
/// each true, but not of one instant.
struct StorageStats {
  std::uint64_t uploads_created = 0;
  std::uint64_t uploads_completed = 0;  // By appends and writers.
  std::uint64_t uploads_deleted = 0;
  std::uint64_t appends = 0;  // Offsets committed.
  std::uint64_t bytes_committed = 0;
  std::uint64_t conflicts = 0;  // Appends and writers that met another offset.
  std::uint64_t take_overs = 0;
  std::uint64_t errors = 0;         // Appends and writers that failed.
  std::uint64_t commit_groups = 0;  // Transactions of the commit thread.
  std::uint64_t checkpoints = 0;
  std::uint64_t wal_bytes = 0;  // Size of the write-ahead log at the last commit.
  std::size_t operations_running = 0;
  std::size_t commits_queued = 0;
  std::size_t reads_queued = 0;
  LatencyHistogram append_latency;  // Of appends, but with Durability::ordered.
  LatencyHistogram commit_latency;  // From queueing a change of a row to its answer.
};

}  // namespace tidemark
