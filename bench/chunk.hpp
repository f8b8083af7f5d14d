#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <memory>
#include <random>
#include <span>

#include <climits>

#include "die.hpp"

namespace tidemark::bench {

inline constexpr std::size_t k_alignment_bytes = 4096;

/// Bytes that no disk can compress, aligned for direct writes. All uploads append the same ones.
class Chunk {
 public:
  explicit Chunk(std::size_t bytes) : bytes_(bytes) {
    void* memory = nullptr;
    if (const int error = ::posix_memalign(&memory, k_alignment_bytes, bytes); error != 0) {
      die("allocate a chunk", error);
    }
    memory_.reset(static_cast<std::byte*>(memory));
    std::independent_bits_engine<std::mt19937_64, CHAR_BIT, unsigned> random;
    std::generate_n(memory_.get(), bytes, [&] { return static_cast<std::byte>(random()); });
  }

  std::span<const std::byte> bytes() const { return {memory_.get(), bytes_}; }

 private:
  std::size_t bytes_;
  std::unique_ptr<std::byte, decltype(&std::free)> memory_{nullptr, &std::free};
};

}  // namespace tidemark::bench
