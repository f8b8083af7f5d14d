#pragma once

// Bytes that tests write and can recognise again from a seed and a place alone, so that no program
// has to keep or send what it wrote. Shared by tests and the programs that tests start.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace tidemark::test {

/// The byte at `position` of the file that belongs to `seed`: byte `position % 8`, the lowest
/// first, of output number `position / 8` of SplitMix64 (Steele, Lea and Flood, 2014) started at
/// `seed`. It depends on nothing else, so a file may be written in pieces of any size.
constexpr std::byte test_byte(std::uint64_t seed, std::uint64_t position) {
  std::uint64_t word = seed + (position / 8 + 1) * 0x9e3779b97f4a7c15;
  word = (word ^ (word >> 30)) * 0xbf58476d1ce4e5b9;
  word = (word ^ (word >> 27)) * 0x94d049bb133111eb;
  word ^= word >> 31;
  return static_cast<std::byte>(word >> (position % 8 * 8));
}

/// Fills `bytes` with what belongs at `position` and after it.
constexpr void fill_test_bytes(std::span<std::byte> bytes, std::uint64_t seed,
                               std::uint64_t position) {
  for (std::byte& byte : bytes) byte = test_byte(seed, position++);
}

/// The `count` bytes that belong at `position` and after it.
inline std::vector<std::byte> test_bytes(std::uint64_t seed, std::uint64_t position,
                                         std::size_t count) {
  std::vector<std::byte> bytes(count);
  fill_test_bytes(bytes, seed, position);
  return bytes;
}

/// The index in `bytes` of the first byte that does not belong there; empty when all do. `bytes`
/// begin at `position` of the file.
constexpr std::optional<std::size_t> first_wrong_byte(std::span<const std::byte> bytes,
                                                      std::uint64_t seed, std::uint64_t position) {
  for (std::size_t index = 0; index < bytes.size(); ++index) {
    if (bytes[index] != test_byte(seed, position + index)) return index;
  }
  return std::nullopt;
}

}  // namespace tidemark::test
