// Any text as the value of each header that examples/tus_server reads: a value or an HttpError, and
// what is written again is the same.

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>

#include "../../examples/tus_server/header_values.hpp"
#include "../../examples/tus_server/http_error.hpp"
#include "property.hpp"

using namespace tidemark;
using namespace tidemark::test;

namespace {

constexpr std::string_view k_base_path = "/files/";

/// What `parse` gives; nothing when it refuses as it may.
template <class Parse>
auto read(Parse parse) -> std::optional<decltype(parse())> {
  try {
    return parse();
  } catch (const tus::HttpError& error) {
    const auto code = static_cast<int>(error.status());
    require(code == 400 || code == 416, "a wrong value is the client's mistake");
    return std::nullopt;
  }
}

/// Nothing of it ends a header.
void check_value(std::string_view text) {
  require(std::ranges::all_of(text, [](char c) { return c >= ' ' && c < '\x7f'; }),
          "a header's value is printable ASCII");
}

void check_metadata(std::string_view text) {
  const auto metadata = read([&] { return tus::parse_metadata(text); });
  if (!metadata) return;
  const std::string written = tus::format_metadata(*metadata);
  check_value(written);
  require(read([&] { return tus::parse_metadata(written); }) == metadata,
          "metadata that was written reads back");
  check_value(tus::format_disposition(*metadata));
  check_value(tus::safe_content_type(*metadata));
}

void check_range(std::string_view text) {
  for (const std::uint64_t size : {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{1000},
                                   static_cast<std::uint64_t>(INT64_MAX)}) {
    const auto range = read([&] { return tus::parse_range(text, size); });
    if (!range || !*range) continue;
    require((*range)->first <= (*range)->last && (*range)->last < size,
            "a range lies within the content");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text = as_text(data, size);
  check_metadata(text);
  check_range(text);
  if (const auto number = read([&] { return tus::parse_number("x", text); })) {
    require(*number <= INT64_MAX, "a number fits the storage");
  }
  if (const auto digest = read([&] { return tus::parse_checksum(text); })) {
    require(digest->digest.size() >= 4 && digest->digest.size() <= 32, "a digest has its length");
  }
  if (const auto concat = read([&] { return tus::parse_concat(text, k_base_path); })) {
    require(concat->partial == concat->parts.empty(), "partial, or final with parts");
    if (concat->partial) return 0;
    const std::string written = tus::format_concat(concat->parts, k_base_path);
    check_value(written);
    require(tus::parse_concat(written, k_base_path).parts == concat->parts, "parts read back");
  }
  return 0;
}
