#pragma once

#include <cstdint>
#include <random>

namespace tidemark::sim {

/// All chance of one simulated run: the seed replays it exactly.
class Random {
 public:
  explicit Random(std::uint64_t seed) : generator_(seed) {}

  std::uint64_t bits() { return generator_(); }
  /// From 0 to `end` - 1.
  std::uint64_t below(std::uint64_t end) { return bits() % end; }
  std::uint64_t between(std::uint64_t first, std::uint64_t last) {
    return first + below(last - first + 1);
  }
  /// True once in `times`.
  bool once_in(std::uint64_t times) { return below(times) == 0; }

 private:
  std::mt19937_64 generator_;
};

}  // namespace tidemark::sim
