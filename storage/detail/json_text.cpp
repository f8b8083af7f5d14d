#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/value.hpp>

#include <tidemark/engine/assert.hpp>
#include <tidemark/storage/detail/json_text.hpp>
#include <tidemark/storage/storage_error.hpp>

namespace tidemark::detail {
namespace {

// A lone surrogate's escape passes through Boost.JSON, which refuses it, as this escape of U+0000
// and the surrogate's four digits, in lower case, so that equal keys stay equal. U+0000 itself is
// marked the same way, and JSON allows it in no other form, so nothing else can look like a mark.
constexpr std::string_view k_mark_escape = "\\u0000";
constexpr std::size_t k_unit_digits = 4;
constexpr std::size_t k_escape_bytes = 6;

bool is_high_surrogate(char32_t c) noexcept {
  return c >= 0xD800 && c <= 0xDBFF;
}
bool is_low_surrogate(char32_t c) noexcept {
  return c >= 0xDC00 && c <= 0xDFFF;
}

/// Takes the first code point off `rest`, which is not empty; nothing when it is malformed.
std::optional<char32_t> take_code_point(std::string_view& rest) noexcept {
  const auto first = static_cast<unsigned char>(rest.front());
  if (first < 0x80) {
    rest.remove_prefix(1);
    return first;
  }
  const std::size_t size = first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
  constexpr std::array<char32_t, 5> k_smallest{0, 0, 0x80, 0x800, 0x10000};
  if (first < 0xC0 || first > 0xF7 || rest.size() < size) {
    return std::nullopt;
  }
  char32_t c = first & (0x7FU >> size);
  for (const char byte : rest.substr(1, size - 1)) {
    const auto bits = static_cast<unsigned char>(byte);
    if ((bits & 0xC0U) != 0x80U) {
      return std::nullopt;
    }
    c = (c << 6U) | (bits & 0x3FU);
  }
  if (c < k_smallest[size] || c > 0x10FFFF) {
    return std::nullopt;
  }
  rest.remove_prefix(size);
  return c;
}

void append_digits(std::string& out, char32_t unit) {
  TIDEMARK_ASSERT(unit <= 0xFFFF, "four digits hold one UTF-16 unit");
  constexpr std::string_view k_digits = "0123456789abcdef";
  for (const unsigned shift : {12U, 8U, 4U, 0U}) {
    out += k_digits[(unit >> shift) & 0xFU];
  }
}

void append_escape(std::string& out, char32_t unit) {
  out += "\\u";
  append_digits(out, unit);
}

/// The letter of the short escape of `c`, or 0.
char short_escape(char32_t c) noexcept {
  switch (c) {
    case U'"':
      return '"';
    case U'\\':
      return '\\';
    case U'\n':
      return 'n';
    case U'\r':
      return 'r';
    case U'\t':
      return 't';
    case U'\b':
      return 'b';
    case U'\f':
      return 'f';
    default:
      return 0;
  }
}

/// The UTF-16 unit of the \uXXXX escape that `text` begins with, if it begins with one.
std::optional<char32_t> leading_escape(std::string_view text) noexcept {
  if (text.size() < k_escape_bytes || !text.starts_with("\\u")) {
    return std::nullopt;
  }
  unsigned unit = 0;
  const char* const begin = text.data() + 2;
  const char* const end = begin + k_unit_digits;
  const auto [stop, error] = std::from_chars(begin, end, unit, 16);
  if (error != std::errc() || stop != end) {
    return std::nullopt;
  }
  return unit;
}

/// `text` with the escapes of lone surrogates and of U+0000 marked. Every other byte is kept, so
/// what was malformed stays malformed.
std::string mark_lone_surrogates(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    std::size_t size = std::min(text.find('\\'), text.size());
    if (size == 0) {
      const std::optional<char32_t> unit = leading_escape(text);
      if (!unit) {
        size = std::min<std::size_t>(2, text.size());
      } else if (is_high_surrogate(*unit) &&
                 is_low_surrogate(leading_escape(text.substr(k_escape_bytes)).value_or(0))) {
        size = 2 * k_escape_bytes;
      } else if (*unit == 0 || is_high_surrogate(*unit) || is_low_surrogate(*unit)) {
        out += k_mark_escape;
        append_digits(out, *unit);
        text.remove_prefix(k_escape_bytes);
        continue;
      } else {
        size = k_escape_bytes;
      }
    }
    out += text.substr(0, size);
    text.remove_prefix(size);
  }
  return out;
}

/// A parsed string with what mark_lone_surrogates() marked put back.
std::string unmark(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (;;) {
    const std::size_t mark = std::min(text.find('\0'), text.size());
    out += text.substr(0, mark);
    text.remove_prefix(mark);
    if (text.empty()) {
      return out;
    }
    TIDEMARK_ASSERT(text.size() > k_unit_digits, "a mark is followed by its digits");
    unsigned unit = 0;
    std::from_chars(text.data() + 1, text.data() + 1 + k_unit_digits, unit, 16);
    if (unit == 0) {
      out += '\0';
    } else {
      out += static_cast<char>(0xE0U | (unit >> 12U));
      out += static_cast<char>(0x80U | ((unit >> 6U) & 0x3FU));
      out += static_cast<char>(0x80U | (unit & 0x3FU));
    }
    text.remove_prefix(1 + k_unit_digits);
  }
}

std::string_view view(boost::json::string_view text) {
  return {text.data(), text.size()};
}

[[noreturn]] void throw_corrupt(std::string_view source, std::string_view why) {
  throw StorageError(Errc::corrupt, source, "", why);
}

boost::json::object parse_object(std::string_view text, std::string_view source) {
  const std::string marked = mark_lone_surrogates(text);
  boost::json::error_code error;
  boost::json::value parsed = boost::json::parse(marked, error);
  if (error) {
    throw_corrupt(source, "it is not JSON: " + error.message());
  }
  if (!parsed.is_object()) {
    throw_corrupt(source, "it is not a JSON object");
  }
  return std::move(parsed.get_object());
}

std::string string_value(const boost::json::key_value_pair& member, std::string_view source) {
  if (!member.value().is_string()) {
    std::string why = "the value of ";
    append_json_string(why, unmark(view(member.key())));
    throw_corrupt(source, why + " is not a string");
  }
  return unmark(view(member.value().get_string()));
}

}  // namespace

bool is_wtf8(std::string_view text) noexcept {
  bool after_high = false;
  while (!text.empty()) {
    const std::optional<char32_t> c = take_code_point(text);
    if (!c || (after_high && is_low_surrogate(*c))) {
      return false;
    }
    after_high = is_high_surrogate(*c);
  }
  return true;
}

void append_json_string(std::string& out, std::string_view text) {
  out += '"';
  while (!text.empty()) {
    const std::optional<char32_t> c = take_code_point(text);
    TIDEMARK_ASSERT(c, "JSON text must be valid WTF-8");
    if (const char letter = short_escape(*c); letter != 0) {
      out += '\\';
      out += letter;
    } else if (*c >= U' ' && *c <= U'~') {
      out += static_cast<char>(*c);
    } else if (*c <= 0xFFFF) {
      append_escape(out, *c);
    } else {
      append_escape(out, 0xD800 + ((*c - 0x10000) >> 10U));
      append_escape(out, 0xDC00 + ((*c - 0x10000) & 0x3FFU));
    }
  }
  out += '"';
}

std::vector<std::pair<std::string, std::string>> parse_string_object(std::string_view text,
                                                                     std::string_view source) {
  std::vector<std::pair<std::string, std::string>> members;
  for (const auto& member : parse_object(text, source)) {
    members.emplace_back(unmark(view(member.key())), string_value(member, source));
  }
  return members;
}

std::vector<std::pair<std::string, std::optional<std::string>>> parse_nullable_string_object(
    std::string_view text, std::string_view source) {
  std::vector<std::pair<std::string, std::optional<std::string>>> members;
  for (const auto& member : parse_object(text, source)) {
    std::optional<std::string> value;
    if (!member.value().is_null()) {
      value = string_value(member, source);
    }
    members.emplace_back(unmark(view(member.key())), std::move(value));
  }
  return members;
}

}  // namespace tidemark::detail
