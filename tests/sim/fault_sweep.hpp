#pragma once

#include <cstdint>

namespace tidemark::sim {

struct FaultSweep {
  std::uint64_t operations = 0;
  std::uint64_t faults = 0;
  std::uint64_t violations = 0;
};

/// For each operation of the storage and the URL store: lets its first call of the system fail, its
/// second, and so on, once and for good, until it passes clean; in the same way the disk is full,
/// transfers are cut short, and allocations fail. What fails says so with the right code, keeps
/// what was there, and lets the next call work. Prints each violation. SQLite was not used before.
FaultSweep run_fault_sweep();

}  // namespace tidemark::sim
