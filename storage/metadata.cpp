#include <algorithm>
#include <charconv>
#include <cstddef>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <tidemark/engine/assert.hpp>
#include <tidemark/storage/detail/json_text.hpp>
#include <tidemark/storage/metadata.hpp>
#include <tidemark/storage/storage_error.hpp>

namespace tidemark {
namespace {

constexpr std::string_view k_source = "metadata";

void require_text(std::string_view text, std::string_view what) {
  if (!detail::is_wtf8(text)) {
    throw StorageError(Errc::invalid_argument, k_source, "", std::string(what) + " is not UTF-8");
  }
}

/// Appends `key` as the next key of the object that `out` holds so far.
void append_key(std::string& out, std::string_view key) {
  if (out.size() > 1) {
    out += ", ";
  }
  detail::append_json_string(out, key);
  out += ": ";
}

std::string to_hex(std::string_view bytes) {
  constexpr std::string_view k_digits = "0123456789abcdef";
  std::string hex;
  hex.reserve(bytes.size() * 2);
  for (const char byte : bytes) {
    hex += k_digits[static_cast<unsigned char>(byte) >> 4U];
    hex += k_digits[static_cast<unsigned char>(byte) & 0xFU];
  }
  return hex;
}

std::optional<std::string> from_hex(std::string_view hex) {
  if (hex.size() % 2 != 0) {
    return std::nullopt;
  }
  std::string bytes;
  bytes.reserve(hex.size() / 2);
  for (; !hex.empty(); hex.remove_prefix(2)) {
    unsigned byte = 0;
    const auto [stop, error] = std::from_chars(hex.data(), hex.data() + 2, byte, 16);
    if (error != std::errc() || stop != hex.data() + 2) {
      return std::nullopt;
    }
    bytes += static_cast<char>(byte);
  }
  return bytes;
}

}  // namespace

Metadata::Metadata(std::initializer_list<std::pair<std::string_view, std::string_view>> entries) {
  for (const auto& [key, text] : entries) {
    set(key, text);
  }
}

void Metadata::set(std::string_view key, std::string_view text) {
  require_text(key, "a key");
  require_text(text, "a text value");
  put(key, text, Kind::text);
}

void Metadata::set_binary(std::string_view key, std::span<const std::byte> bytes) {
  require_text(key, "a key");
  put(key, {reinterpret_cast<const char*>(bytes.data()), bytes.size()}, Kind::binary);
}

void Metadata::set_flag(std::string_view key) {
  require_text(key, "a key");
  put(key, "", Kind::flag);
}

const Metadata::Entry* Metadata::find(std::string_view key) const noexcept {
  const std::size_t at = position(key);
  if (at == by_key_.size() || entries_[by_key_[at]].key != key) {
    return nullptr;
  }
  return &entries_[by_key_[at]];
}

std::size_t Metadata::byte_size() const noexcept {
  std::size_t bytes = 0;
  for (const Entry& entry : entries_) {
    bytes += entry.key.size() + entry.value.size();
  }
  return bytes;
}

std::string Metadata::to_json() const {
  std::string out = "{";
  for (const Entry& entry : entries_) {
    append_key(out, entry.key);
    detail::append_json_string(out, entry.kind == Kind::text ? entry.value : "");
  }
  return out + "}";
}

std::string Metadata::to_extra_json() const {
  std::string out = "{";
  for (const Entry& entry : entries_) {
    if (entry.kind == Kind::text) {
      continue;
    }
    append_key(out, entry.key);
    if (entry.kind == Kind::flag) {
      out += "null";
    } else {
      detail::append_json_string(out, to_hex(entry.value));
    }
  }
  return out.size() == 1 ? "" : out + "}";
}

Metadata Metadata::from_json(std::string_view text, std::string_view extra) {
  Metadata metadata;
  if (text.empty()) {
    return metadata;
  }
  for (const auto& [key, value] : detail::parse_string_object(text, k_source)) {
    metadata.put(key, value, Kind::text);
  }
  if (extra.empty()) {
    return metadata;
  }
  for (const auto& [key, hex] : detail::parse_nullable_string_object(extra, "extra metadata")) {
    const Entry* const entry = metadata.find(key);
    if (entry == nullptr || !entry->value.empty()) {
      continue;
    }
    if (!hex) {
      metadata.put(key, "", Kind::flag);
      continue;
    }
    const std::optional<std::string> bytes = from_hex(*hex);
    if (!bytes) {
      throw StorageError(Errc::corrupt, "extra metadata", "", "a value is not hexadecimal");
    }
    metadata.put(key, *bytes, Kind::binary);
  }
  return metadata;
}

void Metadata::put(std::string_view key, std::string_view value, Kind kind) {
  Entry entry{std::string(key), std::string(value), kind};
  const std::size_t at = position(key);
  if (at < by_key_.size() && entries_[by_key_[at]].key == key) {
    entries_[by_key_[at]] = std::move(entry);
    return;
  }
  entries_.push_back(std::move(entry));
  try {
    by_key_.insert(by_key_.begin() + static_cast<std::ptrdiff_t>(at), entries_.size() - 1);
  } catch (...) {
    entries_.pop_back();
    throw;
  }
  TIDEMARK_ASSERT(by_key_.size() == entries_.size(), "every entry is found by its key");
}

std::size_t Metadata::position(std::string_view key) const noexcept {
  const auto at = std::ranges::lower_bound(
      by_key_, key, {}, [this](std::size_t i) { return std::string_view(entries_[i].key); });
  return static_cast<std::size_t>(at - by_key_.begin());
}

}  // namespace tidemark
