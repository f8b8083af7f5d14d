#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <source_location>
#include <string_view>

namespace tidemark::test {

/// Ends the process when `holds` is false, which libFuzzer takes for a finding.
inline void require(bool holds, const char* property,
                    std::source_location place = std::source_location::current()) {
  if (holds) return;
  std::fprintf(stderr, "%s:%u: broken: %s\n", place.file_name(), place.line(), property);
  std::abort();
}

/// An input of libFuzzer as text.
inline std::string_view as_text(const std::uint8_t* data, std::size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

}  // namespace tidemark::test
