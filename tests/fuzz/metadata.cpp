// Any text as the columns `metadata` and, after a line "=", `metadata_extra`, against a second
// reader and writer of JSON; and as keys and values.

#include <algorithm>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <tidemark/storage/detail/json_text.hpp>
#include <tidemark/storage/metadata.hpp>
#include <tidemark/storage/storage_error.hpp>

#include "json_reference.hpp"
#include "property.hpp"

using namespace tidemark;
using namespace tidemark::test;
using Entry = Metadata::Entry;
using Kind = Metadata::Kind;

namespace {

std::optional<Metadata> read(std::string_view json, std::string_view extra) {
  try {
    return Metadata::from_json(json, extra);
  } catch (const StorageError& error) {
    require(error.code() == Errc::corrupt, "what cannot be read is corrupt");
    return std::nullopt;
  }
}

std::optional<std::string> bytes_of_hex(const Units& hex) {
  if (hex.size() % 2 != 0) return std::nullopt;
  std::string bytes;
  for (std::size_t i = 0; i < hex.size(); i += 2) {
    unsigned byte = 0;
    for (const char16_t digit : hex.substr(i, 2)) {
      const std::string_view digits = "0123456789abcdef0123456789ABCDEF";
      const std::size_t value =
          digit == 0 || digit > 'f' ? digits.npos : digits.find(static_cast<char>(digit));
      if (value == digits.npos) return std::nullopt;
      byte = byte * 16 + static_cast<unsigned>(value % 16);
    }
    bytes += static_cast<char>(byte);
  }
  return bytes;
}

/// What the two columns mean; nothing when they are damaged.
std::optional<std::vector<Entry>> expected_entries(JsonReader& json, JsonReader& extra) {
  std::vector<Entry> entries;
  if (json.is_empty()) return entries;
  const std::optional<JsonObject> texts = json.read_object(false);
  if (!texts) return std::nullopt;
  for (const auto& [key, value] : *texts) entries.push_back({wtf8_of(key), wtf8_of(*value)});
  if (extra.is_empty()) return entries;
  const std::optional<JsonObject> others = extra.read_object(true);
  if (!others) return std::nullopt;
  for (const auto& [key, hex] : *others) {
    const std::string name = wtf8_of(key);
    const auto at = std::ranges::find(entries, name, &Entry::key);
    if (at == entries.end() || !at->value.empty()) continue;
    const std::optional<std::string> bytes = hex ? bytes_of_hex(*hex) : "";
    if (!bytes) return std::nullopt;
    *at = {name, *bytes, hex ? Kind::binary : Kind::flag};
  }
  return entries;
}

/// The column `metadata`, as json.dumps writes it.
std::string expected_json(const Metadata& metadata) {
  std::string json = "{";
  for (const Entry& entry : metadata) {
    if (json.size() > 1) json += ", ";
    json += write_string(units_of(entry.key).value()) + ": ";
    json += write_string(units_of(entry.kind == Kind::text ? entry.value : "").value());
  }
  return json + "}";
}

void check_written(const Metadata& metadata) {
  const std::string json = metadata.to_json();
  require(json == expected_json(metadata), "metadata is written as json.dumps does");
  const std::string extra = metadata.to_extra_json();
  const bool all_text =
      std::ranges::all_of(metadata, [](const Entry& entry) { return entry.kind == Kind::text; });
  require(extra.empty() == all_text, "the extra column holds what text cannot");
  require(read(json, extra) == metadata, "metadata that was written reads back");
  for (const Entry& entry : metadata) {
    const Entry* const found = metadata.find(entry.key);
    require(found != nullptr && *found == entry, "every entry is found by its key");
  }
}

void check_columns(std::string_view json, std::string_view extra) {
  const std::optional<Metadata> metadata = read(json, extra);
  JsonReader json_reader(json);
  JsonReader extra_reader(extra);
  const auto expected = expected_entries(json_reader, extra_reader);
  const bool may_be_no_json = json_reader.has_passed_a_value() || extra_reader.has_passed_a_value();
  if (!metadata && may_be_no_json) return;
  require(metadata.has_value() == expected.has_value(), "objects of strings are read, no others");
  if (!metadata) return;
  require(std::ranges::equal(*metadata, *expected), "metadata is read as it is meant");
  check_written(*metadata);
}

/// `text` as a key and as each kind of value.
void check_values(std::string_view text) {
  const bool is_text = units_of(text).has_value();
  require(detail::is_wtf8(text) == is_text, "text is WTF-8");
  Metadata metadata;
  try {
    metadata.set("key", text);
    metadata.set_flag(text);
    require(is_text, "only text is taken as text");
  } catch (const StorageError& error) {
    require(!is_text && error.code() == Errc::invalid_argument && metadata.empty(),
            "what is no text is refused and changes nothing");
  }
  metadata.set_binary("binary", std::as_bytes(std::span(text)));
  check_written(metadata);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  constexpr std::string_view k_separator = "\n=\n";
  const std::string_view text = as_text(data, size);
  const std::size_t end = text.find(k_separator);
  const bool both = end != std::string_view::npos;
  const std::string_view extra = both ? text.substr(end + k_separator.size()) : "";
  check_columns(text.substr(0, end), extra);
  check_values(text);
  return 0;
}
