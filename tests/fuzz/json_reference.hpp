#pragma once

// A second reader and writer of flat JSON objects, for the fuzz targets to compare with. Strings
// are UTF-16 units, as JSON escapes them, so that lone surrogates need no special case.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdio>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace tidemark::test {

using Units = std::u16string;
/// Members in the order of their first places; a value that is nothing was null.
using JsonObject = std::vector<std::pair<Units, std::optional<Units>>>;

/// Sets the value of a key where it is, or at the end.
inline void set_member(JsonObject& object, const Units& key, const std::optional<Units>& value) {
  const auto at =
      std::find_if(object.begin(), object.end(), [&](const auto& one) { return one.first == key; });
  if (at == object.end()) {
    object.emplace_back(key, value);
  } else {
    at->second = value;
  }
}

/// Takes a UTF-8 character off `text` and appends its units; false when it is malformed. Surrogates
/// pass when `lone` is set.
inline bool take_utf8(std::string_view& text, bool lone, Units& out) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned first = byte(0);
  const std::size_t size = first < 0x80   ? 1
                           : first < 0xC2 ? 0
                           : first < 0xE0 ? 2
                           : first < 0xF0 ? 3
                           : first < 0xF5 ? 4
                                          : 0;
  if (size == 0 || text.size() < size) return false;
  char32_t c = size == 1 ? first : first & (0xFFU >> (size + 1));
  for (std::size_t i = 1; i < size; ++i) {
    if (byte(i) < 0x80 || byte(i) > 0xBF) return false;
    c = c * 64 + (byte(i) - 0x80);
  }
  const bool overlong = (size == 3 && c < 0x800) || (size == 4 && c < 0x10000);
  const bool surrogate = c >= 0xD800 && c < 0xE000;
  if (overlong || c > 0x10FFFF || (surrogate && !lone)) return false;
  text.remove_prefix(size);
  if (c < 0x10000) {
    out += static_cast<char16_t>(c);
  } else {
    out += static_cast<char16_t>(0xD800 + (c - 0x10000) / 0x400);
    out += static_cast<char16_t>(0xDC00 + (c - 0x10000) % 0x400);
  }
  return true;
}

inline bool is_high(char16_t unit) {
  return unit >= 0xD800 && unit < 0xDC00;
}
inline bool is_low(char16_t unit) {
  return unit >= 0xDC00 && unit < 0xE000;
}

/// The units of WTF-8: nothing for malformed text, and for a pair of surrogates in six bytes.
inline std::optional<Units> units_of(std::string_view text) {
  Units units;
  bool after_lone_high = false;
  while (!text.empty()) {
    const std::size_t before = units.size();
    if (!take_utf8(text, true, units)) return std::nullopt;
    const bool single = units.size() == before + 1;
    if (after_lone_high && single && is_low(units.back())) return std::nullopt;
    after_lone_high = single && is_high(units.back());
  }
  return units;
}

/// WTF-8 of any units.
inline std::string wtf8_of(const Units& units) {
  std::string text;
  const auto tail = [&](char32_t bits) { text += static_cast<char>(0x80 + bits % 64); };
  for (std::size_t i = 0; i < units.size(); ++i) {
    char32_t c = units[i];
    if (is_high(units[i]) && i + 1 < units.size() && is_low(units[i + 1])) {
      c = 0x10000 + (c - 0xD800) * 0x400 + (units[++i] - 0xDC00U);
    }
    if (c < 0x80) {
      text += static_cast<char>(c);
    } else if (c < 0x800) {
      text += static_cast<char>(0xC0 + c / 64);
      tail(c);
    } else if (c < 0x10000) {
      text += static_cast<char>(0xE0 + c / 4096);
      tail(c / 64);
      tail(c);
    } else {
      text += static_cast<char>(0xF0 + c / 262144);
      tail(c / 4096);
      tail(c / 64);
      tail(c);
    }
  }
  return text;
}

/// As json.dumps writes a string.
inline std::string write_string(const Units& units) {
  constexpr std::string_view k_short = "\"\"\\\\\nn\rr\tt\bb\ff";
  std::string text = "\"";
  for (const char16_t unit : units) {
    std::size_t at = 0;
    while (at < k_short.size() && static_cast<char16_t>(k_short[at]) != unit) at += 2;
    if (at < k_short.size()) {
      text += {'\\', k_short[at + 1]};
    } else if (unit >= 0x20 && unit < 0x7F) {
      text += static_cast<char>(unit);
    } else {
      std::array<char, 8> escape{};
      std::snprintf(escape.data(), escape.size(), "\\u%04x", static_cast<unsigned>(unit));
      text += escape.data();
    }
  }
  return text + '"';
}

/// Reads a JSON text that is an object of strings, or of strings and nulls. The last member of a
/// name counts, so a value of another kind is passed, and may be replaced.
class JsonReader {
 public:
  explicit JsonReader(std::string_view text) : rest_(text) {}

  bool is_empty() const { return rest_.empty(); }
  /// Nothing for any other text.
  std::optional<JsonObject> read_object(bool with_nulls) {
    JsonObject object;
    std::set<Units> others;
    if (!take_token('{')) return std::nullopt;
    if (!take_token('}')) {
      do {
        const std::optional<Units> key = read_string();
        if (!key || !take_token(':')) return std::nullopt;
        others.erase(*key);
        std::optional<Units> value;
        skip_space();
        if (rest_.starts_with('"')) {
          value = read_string();
          if (!value) return std::nullopt;
        } else if (!with_nulls || !take("null")) {
          if (!skip_value()) return std::nullopt;
          others.insert(*key);
        }
        set_member(object, *key, value);
      } while (take_token(','));
      if (!take_token('}')) return std::nullopt;
    }
    skip_space();
    if (!rest_.empty() || !others.empty()) return std::nullopt;
    return object;
  }

  /// Whether a value was passed, which is not looked at: the text may be no JSON.
  bool has_passed_a_value() const { return has_passed_a_value_; }

 private:
  void skip_space() {
    rest_.remove_prefix(std::min(rest_.find_first_not_of(" \t\r\n"), rest_.size()));
  }
  bool take(std::string_view text) {
    if (!rest_.starts_with(text)) return false;
    rest_.remove_prefix(text.size());
    return true;
  }
  bool take_token(char c) {
    skip_space();
    return take(std::string_view(&c, 1));
  }
  bool skip_value() {
    has_passed_a_value_ = true;
    std::size_t depth = 0;
    while (!rest_.empty() && (depth > 0 || (rest_.front() != ',' && rest_.front() != '}'))) {
      const char c = rest_.front();
      if (c == '"') {
        if (!read_string()) return false;
        continue;
      }
      if (c == '[' || c == '{') ++depth;
      if ((c == ']' || c == '}') && depth-- == 0) return false;
      rest_.remove_prefix(1);
    }
    return true;
  }

  std::optional<Units> read_string() {
    Units units;
    if (!take_token('"')) return std::nullopt;
    while (!rest_.empty() && rest_.front() != '"') {
      if (static_cast<unsigned char>(rest_.front()) < 0x20) return std::nullopt;
      if (!(take("\\") ? take_escape(units) : take_utf8(rest_, false, units))) return std::nullopt;
    }
    if (!take("\"")) return std::nullopt;
    return units;
  }

  bool take_escape(Units& units) {
    constexpr std::string_view k_letters = "\"\\/bfnrtu";
    constexpr std::string_view k_meanings = "\"\\/\b\f\n\r\t";
    const std::size_t letter = rest_.empty() ? k_letters.npos : k_letters.find(rest_.front());
    if (letter == k_letters.npos) return false;
    rest_.remove_prefix(1);
    if (letter < k_meanings.size()) {
      units += static_cast<char16_t>(k_meanings[letter]);
      return true;
    }
    const std::string_view digits = rest_.substr(0, 4);
    if (digits.size() < 4 || digits.find_first_not_of("0123456789abcdefABCDEF") != digits.npos) {
      return false;
    }
    units += static_cast<char16_t>(std::stoul(std::string(digits), nullptr, 16));
    rest_.remove_prefix(4);
    return true;
  }

  std::string_view rest_;
  bool has_passed_a_value_ = false;
};

}  // namespace tidemark::test
