#pragma once

// What append_contender and the tests that check its work agree on.

#include <cstddef>
#include <cstdint>
#include <string>

#include "../test_bytes.hpp"

namespace tidemark::test {

/// One acknowledged append, in the file DIR/contender-INDEX.
struct Acknowledged {
  std::uint64_t upload = 0;
  std::uint64_t offset = 0;
};

inline std::string contended_upload(std::uint64_t upload) {
  return "contended-" + std::to_string(upload);
}

inline constexpr std::size_t k_min_append_bytes = 64;
inline constexpr std::size_t k_max_append_bytes = 256;

/// How much the contender `index` appends at `offset`: with test_bytes(index, offset, ...), who
/// wrote what can be told from the bytes of the file alone.
inline std::size_t append_bytes(std::uint64_t index, std::uint64_t offset) {
  constexpr std::size_t k_span = k_max_append_bytes - k_min_append_bytes + 1;
  return k_min_append_bytes +
         (static_cast<std::size_t>(test_byte(index, ~offset)) * std::size_t{7} % k_span);
}

}  // namespace tidemark::test
