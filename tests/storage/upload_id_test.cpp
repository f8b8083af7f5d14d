#include <compare>
#include <cstddef>
#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>
#include <unordered_set>

#include <tidemark/storage/storage_error.hpp>
#include <tidemark/storage/upload_id.hpp>

#include "catch.hpp"

using tidemark::Errc;
using tidemark::StorageError;
using tidemark::UploadId;

static_assert(!std::is_default_constructible_v<UploadId>);
static_assert(std::is_trivially_copyable_v<UploadId>);
static_assert(std::is_convertible_v<std::string, UploadId>);
static_assert(sizeof(UploadId) == 66);

TEST_CASE("an upload id is 1 to 64 characters long") {
  CHECK_FALSE(UploadId::parse(""));
  CHECK_FALSE(UploadId::parse({}));
  CHECK(UploadId::parse("a")->view() == "a");
  for (const std::size_t size : {std::size_t{63}, std::size_t{64}}) {
    const std::string text(size, 'x');
    CHECK(UploadId::parse(text)->view() == text);
  }
  CHECK_FALSE(UploadId::parse(std::string(65, 'x')));
  CHECK_FALSE(UploadId::parse(std::string(256, 'x')));  // 256 would be 0 in its size's byte.
  CHECK_FALSE(UploadId::parse(std::string(257, 'x')));
}

TEST_CASE("an upload id holds only letters, digits, underscore and minus") {
  constexpr std::string_view k_allowed =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";
  CHECK(UploadId::parse(k_allowed)->view() == k_allowed);
  for (int byte = 0; byte < 256; ++byte) {
    const char c = static_cast<char>(byte);
    const bool allowed = k_allowed.find(c) != std::string_view::npos;
    INFO("byte " << byte);
    CHECK(UploadId::parse(std::string(1, c)).has_value() == allowed);
    CHECK(UploadId::parse(std::string("a") + c + "b").has_value() == allowed);
  }
  for (const char* const path : {".", "..", "a/b", "../a", "/a", "a.", "a\\b"}) {
    CHECK_FALSE(UploadId::parse(path));
  }
}

TEST_CASE("an upload id converts from strings and throws for what is none") {
  const UploadId from_literal = "abc";
  const UploadId from_string = std::string("abc");
  const UploadId from_view = std::string_view("abcdef").substr(0, 3);
  CHECK(from_literal == from_string);
  CHECK(from_literal == from_view);
  try {
    const UploadId id = "../etc/passwd";
    FAIL("made " << id.view());
  } catch (const StorageError& error) {
    CHECK(error.code() == Errc::invalid_argument);
    CHECK(std::string_view(error.what()).find("passwd") == std::string_view::npos);
  }
  CHECK_THROWS_AS(UploadId(std::string("a\0b", 3)), StorageError);
}

TEST_CASE("an upload id ends with a zero at every size") {
  for (std::size_t size = 1; size <= UploadId::k_max_bytes; ++size) {
    const UploadId id = std::string(size, 'q');
    CHECK(std::strlen(id.c_str()) == size);
    CHECK(id.view().size() == size);
  }
}

TEST_CASE("upload ids are ordered by their bytes") {
  CHECK(UploadId("a") < UploadId("b"));
  CHECK(UploadId("a") < UploadId("aa"));
  CHECK(UploadId("aa") < UploadId("b"));
  CHECK(UploadId("-") < UploadId("0"));
  CHECK(UploadId("Z") < UploadId("_"));
  CHECK(UploadId("_") < UploadId("a"));
  CHECK((UploadId("x") <=> UploadId("x")) == std::strong_ordering::equal);
}

TEST_CASE("an assigned upload id forgets the longer one that was there") {
  UploadId id = std::string(64, 'x');
  id = "x";
  CHECK(id == UploadId("x"));
  CHECK(std::strlen(id.c_str()) == 1);
}

TEST_CASE("upload ids are keys of hash tables") {
  const std::unordered_set<UploadId> ids{"a", "b", "a"};
  CHECK(ids.size() == 2);
  CHECK(ids.contains("b"));
  CHECK_FALSE(ids.contains("c"));
}
