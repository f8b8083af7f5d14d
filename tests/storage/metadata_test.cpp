#include <array>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <tidemark/storage/detail/json_text.hpp>
#include <tidemark/storage/metadata.hpp>
#include <tidemark/storage/storage_error.hpp>

#include "catch.hpp"

using tidemark::Errc;
using tidemark::Metadata;
using tidemark::StorageError;
using Kind = tidemark::Metadata::Kind;

namespace {

constexpr char32_t k_last_code_point = 0x10FFFF;

/// UTF-8's rule, applied to surrogates too.
std::string encode(char32_t c) {
  const auto tail = [c](unsigned shift) {
    return static_cast<char>(0x80U | ((c >> shift) & 0x3FU));
  };
  if (c < 0x80) return {static_cast<char>(c)};
  if (c < 0x800) return {static_cast<char>(0xC0U | (c >> 6U)), tail(0)};
  if (c < 0x10000) return {static_cast<char>(0xE0U | (c >> 12U)), tail(6), tail(0)};
  return {static_cast<char>(0xF0U | (c >> 18U)), tail(12), tail(6), tail(0)};
}

std::string unit(char32_t value) {
  std::array<char, 16> text{};
  std::snprintf(text.data(), text.size(), "\\u%04x", static_cast<unsigned>(value));
  return text.data();
}

/// What json.dumps writes for `c`, without the quotes.
std::string expected_json(char32_t c) {
  switch (c) {
    case '"':
      return "\\\"";
    case '\\':
      return "\\\\";
    case '\n':
      return "\\n";
    case '\r':
      return "\\r";
    case '\t':
      return "\\t";
    case '\b':
      return "\\b";
    case '\f':
      return "\\f";
    default:
      break;
  }
  if (c >= ' ' && c <= '~') return {static_cast<char>(c)};
  if (c <= 0xFFFF) return unit(c);
  return unit(0xD800 + ((c - 0x10000) >> 10U)) + unit(0xDC00 + ((c - 0x10000) & 0x3FFU));
}

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

/// The message of the StorageError (corrupt) that reading these ends with.
std::string corrupt_message(std::string_view text, std::string_view extra = "") {
  try {
    const Metadata metadata = Metadata::from_json(text, extra);
    return "read as " + metadata.to_json();
  } catch (const StorageError& error) {
    return error.code() == Errc::corrupt ? error.what() : "not corrupt";
  }
}

template <typename F>
bool is_invalid_argument(F action) {
  try {
    action();
    return false;
  } catch (const StorageError& error) {
    return error.code() == Errc::invalid_argument;
  }
}

std::size_t count_entries(const Metadata& metadata) {
  return metadata.size();
}

}  // namespace

TEST_CASE("metadata keeps the order in which keys were first set") {
  Metadata metadata{{"b", "1"}, {"a", "2"}, {"c", "3"}};
  metadata.set("a", "two");
  std::string order;
  for (const Metadata::Entry& entry : metadata) order += entry.key + "=" + entry.value + " ";
  CHECK(order == "b=1 a=two c=3 ");
  CHECK(metadata.size() == 3);
  CHECK(metadata.find("a")->value == "two");
  CHECK(metadata.find("d") == nullptr);
  CHECK(metadata.find("") == nullptr);
  CHECK_FALSE(metadata.empty());
}

TEST_CASE("metadata is written as a list of pairs wherever it is expected") {
  CHECK(count_entries({}) == 0);
  CHECK(count_entries({{"key", "value"}}) == 1);
  CHECK(count_entries({{"key", "value"}, {"other", "value"}}) == 2);
  CHECK(count_entries({{"key", "1"}, {"key", "2"}}) == 1);
}

TEST_CASE("metadata counts the bytes of keys and values") {
  Metadata metadata;
  CHECK(metadata.byte_size() == 0);
  metadata.set("key", "\xC3\xA4");
  CHECK(metadata.byte_size() == 5);
  metadata.set_binary("b", bytes_of(std::string_view("\0\xFF\0", 3)));
  CHECK(metadata.byte_size() == 9);
  metadata.set_flag("key");
  CHECK(metadata.byte_size() == 7);
}

TEST_CASE("metadata takes a value that lies in itself") {
  Metadata metadata{{"a", "a value too long for a small string's own buffer"}};
  metadata.set("b", metadata.find("a")->value);
  metadata.set(metadata.find("a")->value, metadata.find("a")->key);
  CHECK(metadata.find("b")->value == metadata.find("a")->value);
  CHECK(metadata.find(metadata.find("a")->value)->value == "a");
}

TEST_CASE("metadata finds each of many keys") {
  constexpr int k_keys = 20000;
  Metadata metadata;
  for (int i = 0; i < k_keys; ++i)
    metadata.set(std::to_string(i * 7919 % k_keys), std::to_string(i));
  REQUIRE(metadata.size() == k_keys);
  for (int i = 0; i < k_keys; ++i) {
    const Metadata::Entry* const entry = metadata.find(std::to_string(i * 7919 % k_keys));
    REQUIRE(entry != nullptr);
    REQUIRE(entry->value == std::to_string(i));
  }
  CHECK(Metadata::from_json(metadata.to_json(), "") == metadata);
}

TEST_CASE("metadata refuses keys and text that are not UTF-8 and then is unchanged") {
  const std::vector<std::string> malformed{
      "\x80",                  // A continuation byte alone.
      "a\xC3",                 // Cut short.
      "\xC3(",                 // A wrong continuation.
      "\xE2\x82",              // Cut short.
      "\xE2\x28\xA1",          // A wrong continuation.
      "\xF0\x9F\x98",          // Cut short.
      "\xC0\x80",              // An overlong U+0000.
      "\xC1\xBF",              // An overlong U+007F.
      "\xE0\x9F\xBF",          // An overlong U+07FF.
      "\xF0\x8F\xBF\xBF",      // An overlong U+FFFF.
      "\xF4\x90\x80\x80",      // U+110000.
      "\xF9\x80\x80\x80",      // A first byte of five, whose bits would be in range of four.
      "\xBF\x80",              // A continuation byte first, whose bits would be in range of two.
      "\xF8\x88\x80\x80\x80",  // Five bytes.
      "\xFF",                  // Never a part of UTF-8.
      "\xED\xA0\xBD\xED\xB8\x80",  // A surrogate pair as two sequences.
      "\xED\xAF\xBF\xED\xB0\x80",  // The same with the last high and the first low surrogate.
  };
  for (const std::string& text : malformed) {
    INFO(text);
    Metadata metadata{{"a", "b"}};
    const Metadata before = metadata;
    CHECK(is_invalid_argument([&] { metadata.set("a", text); }));
    CHECK(is_invalid_argument([&] { metadata.set(text, "b"); }));
    CHECK(is_invalid_argument([&] { metadata.set_flag(text); }));
    CHECK(is_invalid_argument([&] { metadata.set_binary(text, {}); }));
    CHECK(is_invalid_argument([&] { metadata.set("a", "x" + text); }));
    CHECK(metadata == before);
    metadata.set_binary("a", bytes_of(text));
    CHECK(metadata.find("a")->value == text);
  }
}

TEST_CASE("metadata takes surrogates that are no pair") {
  for (const std::string_view text : {
           "\xED\xA0\x80",                  // The first high one.
           "\xED\xBF\xBF",                  // The last low one.
           "\xED\xB8\x80\xED\xA0\xBD",      // Low, then high.
           "\xED\xA0\xBD\xED\xA0\xBD",      // High, then high.
           "\xED\xA0\xBD-\xED\xB8\x80",     // Something between.
           "\xED\xA0\xBD\xF0\x9F\x98\x80",  // High, then a character that JSON writes as a pair.
           "\xF0\x9F\x98\x80\xED\xB8\x80",  // The other way round.
       }) {
    const Metadata metadata{{text, text}};
    CHECK(Metadata::from_json(metadata.to_json(), "") == metadata);
  }
}

TEST_CASE("metadata is written as json.dumps writes it") {
  CHECK(Metadata().to_json() == "{}");
  CHECK(Metadata{{"filename", "a b.txt"}}.to_json() == R"({"filename": "a b.txt"})");
  CHECK(Metadata{{"b", ""}, {"a", "\"/\\"}}.to_json() == R"({"b": "", "a": "\"/\\"})");
  CHECK(Metadata{{"\xC3\xA4", "\xF0\x9F\x98\x80\x7F"}}.to_json() ==
        R"({"\u00e4": "\ud83d\ude00\u007f"})");
  CHECK(Metadata().to_extra_json().empty());
  CHECK(Metadata{{"a", ""}}.to_extra_json().empty());
}

TEST_CASE("every code point is written by json.dumps' rule and read back") {
  for (char32_t c = 0; c <= k_last_code_point; ++c) {
    const std::string text = encode(c);
    std::string json;
    tidemark::detail::append_json_string(json, text);
    const std::string expected = "\"" + expected_json(c) + "\"";
    if (json != expected) FAIL("code point " << static_cast<unsigned>(c) << ": " << json);
    const std::string object = "{" + json + ": " + json + "}";
    const auto members = tidemark::detail::parse_string_object(object, "test");
    if (members.size() != 1 || members[0].first != text || members[0].second != text) {
      FAIL("code point " << static_cast<unsigned>(c) << " was not read back from " << object);
    }
  }
}

TEST_CASE("every code point is written as the installed Python writes it") {
  if (std::system("python3 -c 'import json' > /dev/null 2>&1") != 0) {
    WARN("NOT TESTED: there is no python3 on PATH to compare json.dumps with");
    return;
  }
  std::string name = (std::filesystem::temp_directory_path() / "tidemark-json-XXXXXX").string();
  REQUIRE(mkdtemp(name.data()) != nullptr);
  const std::filesystem::path folder = name;
  const std::string script =
      "import json\n"
      "for c in range(0x110000): print(json.dumps({chr(c): 'x' + chr(c) + 'y'}))\n"
      "for c in range(0xd800, 0xe000): print(json.dumps({'': chr(c) + chr(0x1f600) + chr(c)}))\n";
  std::ofstream(folder / "dump.py") << script;
  const std::string command =
      "python3 '" + (folder / "dump.py").string() + "' > '" + (folder / "lines").string() + "'";
  REQUIRE(std::system(command.c_str()) == 0);

  std::ifstream lines(folder / "lines");
  const auto check_line = [&lines](const Metadata& metadata, char32_t c) {
    std::string line;
    std::getline(lines, line);
    if (metadata.to_json() != line) FAIL("code point " << static_cast<unsigned>(c) << ": " << line);
    if (Metadata::from_json(line, "") != metadata) FAIL("was not read back: " << line);
  };
  for (char32_t c = 0; c <= k_last_code_point; ++c) {
    check_line({{encode(c), "x" + encode(c) + "y"}}, c);
  }
  for (char32_t c = 0xD800; c < 0xE000; ++c) {
    check_line({{"", encode(c) + encode(0x1F600) + encode(c)}}, c);
  }
  CHECK(lines.peek() == std::ifstream::traits_type::eof());
  std::filesystem::remove_all(folder);
}

TEST_CASE("metadata reads any JSON object of strings") {
  CHECK(Metadata::from_json("", "").empty());
  CHECK(Metadata::from_json({}, {}).empty());
  CHECK(Metadata::from_json("{}", "").empty());
  CHECK(Metadata::from_json(" {\n\"a\" :\t\"b\"\r} ", "") == Metadata{{"a", "b"}});
  CHECK(Metadata::from_json(R"({"a": "\u00E4\/"})", "") == Metadata{{"a", "\xC3\xA4/"}});
  CHECK(Metadata::from_json("{\"a\": \"\xC3\xA4\"}", "") == Metadata{{"a", "\xC3\xA4"}});
}

TEST_CASE("escapes that look like surrogates or like their marks are read as Python reads them") {
  const auto value = [](std::string_view json) {
    return Metadata::from_json("{\"k\": \"" + std::string(json) + "\"}", "").find("k")->value;
  };
  using std::string_literals::operator""s;
  CHECK(value(R"(\uD83D\uDE00)") == "\xF0\x9F\x98\x80");
  CHECK(value(R"(\ud83d\ud83d\ude00)") == "\xED\xA0\xBD\xF0\x9F\x98\x80");
  CHECK(value(R"(\ud83d\ude00\ude00)") == "\xF0\x9F\x98\x80\xED\xB8\x80");
  CHECK(value(R"(\ud83d\\ude00)") == "\xED\xA0\xBD\\ude00");
  CHECK(value(R"(\\ud83d\ude00)") == "\\ud83d\xED\xB8\x80");
  CHECK(value(R"(\\\ud83d)") == "\\\xED\xA0\xBD");
  CHECK(value(R"(\ud83du)") == "\xED\xA0\xBDu");
  CHECK(value(R"(\ud83d\n)") == "\xED\xA0\xBD\n");
  CHECK(value(R"(\u0000d83d)") == "\0d83d"s);
  CHECK(value(R"(\u0000)") == "\0"s);
  CHECK(value(R"(\u0000\u0000\ud800)") == "\0\0\xED\xA0\x80"s);
  CHECK(value(R"(\\u0000)") == "\\u0000");
  CHECK(value(R"(\ud83d\u0041)") == "\xED\xA0\xBD\x41");
}

TEST_CASE("the last value of a repeated key wins at the key's first place") {
  CHECK(Metadata::from_json(R"({"a": "1", "b": "2", "a": "3"})", "") ==
        Metadata{{"a", "3"}, {"b", "2"}});
  CHECK(Metadata::from_json(R"({"\ud800": "1", "\uD800": "2", "\u0061": "3", "a": "4"})", "") ==
        Metadata{{"\xED\xA0\x80", "2"}, {"a", "4"}});
  // Boost.JSON keeps large objects another way than small ones.
  std::string text = "{";
  Metadata expected;
  for (const char* const value : {"first", "last"}) {
    for (int i = 0; i < 100; ++i) {
      text += (text.size() == 1 ? "\"" : ", \"") + std::to_string(i) + "\": \"" + value + "\"";
      expected.set(std::to_string(i), value);
    }
  }
  CHECK(Metadata::from_json(text + "}", "") == expected);
}

TEST_CASE("metadata that is no object of strings is corrupt, and the error says why") {
  const auto contains = [](std::string_view part) {
    return Catch::Matchers::Contains(std::string(part));
  };
  CHECK_THAT(corrupt_message("{"), contains("metadata: it is not JSON: "));
  CHECK_THAT(corrupt_message("nonsense"), contains("not JSON"));
  CHECK_THAT(corrupt_message(" "), contains("not JSON"));
  CHECK_THAT(corrupt_message("{} {}"), contains("not JSON"));
  CHECK_THAT(corrupt_message("{'a': 'b'}"), contains("not JSON"));
  CHECK_THAT(corrupt_message("{\"a\": \"\n\"}"), contains("not JSON"));
  CHECK_THAT(corrupt_message(std::string_view("{\"a\": \"\0"
                                              "0000\"}",
                                              14)),
             contains("not JSON"));
  CHECK_THAT(corrupt_message("{\"a\": \"\xFF\"}"), contains("not JSON"));
  CHECK_THAT(corrupt_message("{\"a\": \"\xED\xA0\xBD\"}"), contains("not JSON"));
  CHECK_THAT(corrupt_message(R"({"a": "\ud83"})"), contains("not JSON"));
  CHECK_THAT(corrupt_message(R"({"a": "\u12\u0000"})"), contains("not JSON"));
  CHECK_THAT(corrupt_message(R"({"a": "\u0", "b": "c"})"), contains("not JSON"));
  CHECK_THAT(corrupt_message(R"({"a": "\u000x"})"), contains("not JSON"));
  CHECK_THAT(corrupt_message(R"({"a": "\x"})"), contains("not JSON"));
  CHECK_THAT(corrupt_message(R"({"a": "\)"), contains("not JSON"));
  CHECK_THAT(corrupt_message(R"(\u0000{})"), contains("not JSON"));
  CHECK_THAT(corrupt_message(std::string(100000, '[')), contains("not JSON"));
  CHECK_THAT(corrupt_message("[]"), contains("not a JSON object"));
  CHECK_THAT(corrupt_message("null"), contains("not a JSON object"));
  CHECK_THAT(corrupt_message("\"a\""), contains("not a JSON object"));
  CHECK_THAT(corrupt_message(R"({"a": "b", "\u00e4": 1})"),
             contains(R"(the value of "\u00e4" is not a string)"));
  CHECK_THAT(corrupt_message(R"({"a": null})"), contains("is not a string"));
  CHECK_THAT(corrupt_message(R"({"a": {"b": "c"}})"), contains("is not a string"));
}

TEST_CASE("binary values and flags survive in the extra column") {
  Metadata metadata{{"name", "x"}};
  metadata.set_flag("is_confidential");
  metadata.set_binary("digest", bytes_of(std::string_view("\x00\x7F\x80\xFF", 4)));
  metadata.set_binary("empty", {});
  metadata.set("last", "");
  CHECK(metadata.to_json() ==
        R"({"name": "x", "is_confidential": "", "digest": "", "empty": "", "last": ""})");
  CHECK(metadata.to_extra_json() ==
        R"({"is_confidential": null, "digest": "007f80ff", "empty": ""})");
  const Metadata read = Metadata::from_json(metadata.to_json(), metadata.to_extra_json());
  CHECK(read == metadata);
  CHECK(read.find("is_confidential")->kind == Kind::flag);
  CHECK(read.find("digest")->kind == Kind::binary);
  CHECK(read.find("empty")->kind == Kind::binary);
  CHECK(read.find("last")->kind == Kind::text);
}

TEST_CASE("an extra entry counts only where the text has its key with an empty value") {
  const Metadata read = Metadata::from_json(R"({"a": "text", "b": ""})",
                                            R"({"a": null, "b": "00", "c": "01", "d": null})");
  CHECK(read.to_json() == R"({"a": "text", "b": ""})");
  CHECK(read.to_extra_json() == R"({"b": "00"})");
  CHECK(Metadata::from_json("", R"({"a": null})").empty());
}

TEST_CASE("an extra column that is damaged is corrupt") {
  const auto contains = [](std::string_view part) {
    return Catch::Matchers::Contains(std::string(part));
  };
  for (const std::string_view hex : {"0", "000", "0g", "-1", "0x", " 1"}) {
    const std::string extra = "{\"a\": \"" + std::string(hex) + "\"}";
    CHECK_THAT(corrupt_message(R"({"a": ""})", extra), contains("not hexadecimal"));
  }
  CHECK_THAT(corrupt_message("{}", "{"), contains("extra metadata: it is not JSON"));
  CHECK_THAT(corrupt_message("{}", "[]"), contains("not a JSON object"));
  CHECK_THAT(corrupt_message("{}", R"({"a": true})"), contains("is not a string"));
}

TEST_CASE("a value that was set again has its new kind") {
  Metadata metadata{{"a", "text"}};
  metadata.set_binary("a", bytes_of("b"));
  CHECK(metadata.find("a")->kind == Kind::binary);
  metadata.set_flag("a");
  CHECK(metadata.find("a")->kind == Kind::flag);
  CHECK(metadata.find("a")->value.empty());
  metadata.set("a", "again");
  CHECK(metadata.to_extra_json().empty());
  CHECK(metadata == Metadata{{"a", "again"}});
}
