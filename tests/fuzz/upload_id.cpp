// Any bytes as an upload id. An input with a line break is two ids, which are compared.

#include <algorithm>
#include <compare>
#include <cstring>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include <tidemark/storage/storage_error.hpp>
#include <tidemark/storage/upload_id.hpp>

#include "property.hpp"

using namespace tidemark;
using namespace tidemark::test;

namespace {

constexpr std::string_view k_allowed =
    "-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz";

/// The id that converting `text` gives; nothing when that throws.
std::optional<UploadId> convert(std::string_view text) {
  try {
    return UploadId(text);
  } catch (const StorageError& error) {
    require(error.code() == Errc::invalid_argument, "a bad id is an invalid argument");
    const std::string_view message = error.what();
    require(std::ranges::all_of(message, [](char c) { return c >= ' ' && c <= '~'; }),
            "what came from outside is not repeated");
    return std::nullopt;
  }
}

std::optional<UploadId> check(std::string_view text) {
  const std::optional<UploadId> id = UploadId::parse(text);
  const bool allowed = text.find_first_not_of(k_allowed) == std::string_view::npos;
  require(id.has_value() == (!text.empty() && text.size() <= 64 && allowed),
          "an id is 1 to 64 characters of [A-Za-z0-9_-]");
  require(convert(text) == id, "a conversion takes what parse takes");
  if (!id) return id;
  require(id->view() == text, "an id is the text that it was made of");
  require(std::strlen(id->c_str()) == text.size(), "an id ends with a zero");
  const std::filesystem::path name(id->view());
  require(name.filename() == name && name != "." && name != "..", "an id is one name in a folder");
  return id;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text = as_text(data, size);
  const std::size_t end = std::min(text.find('\n'), text.size());
  const std::string_view one = text.substr(0, end);
  const std::string_view two = text.substr(std::min(end + 1, text.size()));
  const std::optional<UploadId> first = check(one);
  const std::optional<UploadId> second = check(two);
  if (!first || !second) return 0;
  require((*first <=> *second) == (one <=> two), "ids are ordered by their bytes");
  require((*first == *second) == (one == two), "equal ids have equal texts");
  const std::hash<UploadId> hash;
  require(one != two || hash(*first) == hash(*second), "equal ids have equal hashes");
  UploadId assigned = *first;
  assigned = *second;
  require(assigned == *second && assigned.view() == two, "an assigned id forgets the one before");
  return 0;
}
