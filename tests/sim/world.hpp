#pragma once

#include <cstdint>

namespace tidemark::sim {

struct Totals {
  std::uint64_t seeds = 0;
  std::uint64_t cuts = 0;
  std::uint64_t kills = 0;
  std::uint64_t operations = 0;  // Of the drivers.
};

/// Runs the whole story of one seed: a disk, and several lives of a machine on it, each ended by a
/// power cut or in order, with a check of all promises after each. Throws Violation.
void run_seed(std::uint64_t seed, bool is_verbose, Totals& totals);

}  // namespace tidemark::sim
