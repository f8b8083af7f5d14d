#include "header_values.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <ctime>
#include <span>
#include <utility>

#include <openssl/evp.h>

#include <tidemark/storage/storage_error.hpp>

#include "../base64.hpp"
#include "http_error.hpp"

namespace tus {
namespace {

using boost::beast::http::status;
using tidemark::Metadata;
using tidemark::UploadId;

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

/// What stands before `separator`, which is taken off `rest` with it.
std::string_view take_until(std::string_view& rest, char separator) {
  const std::size_t end = std::min(rest.find(separator), rest.size());
  const std::string_view piece = rest.substr(0, end);
  rest.remove_prefix(std::min(end + 1, rest.size()));
  return piece;
}

/// Of RFC 4648, with its padding.
std::optional<std::string> decode_base64(std::string_view text) {
  const auto is_digit = [](char c) {
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '+' ||
           c == '/';
  };
  std::size_t padding = 0;
  while (padding < 2 && padding < text.size() && text[text.size() - 1 - padding] == '=') ++padding;
  const std::string_view digits = text.substr(0, text.size() - padding);
  if (text.size() % 4 != 0 || !std::all_of(digits.begin(), digits.end(), is_digit)) return {};
  std::string bytes(text.size() / 4 * 3, '\0');
  const int size = EVP_DecodeBlock(reinterpret_cast<unsigned char*>(bytes.data()),
                                   reinterpret_cast<const unsigned char*>(text.data()),
                                   static_cast<int>(text.size()));
  if (size < 0) return {};
  bytes.resize(static_cast<std::size_t>(size) - padding);
  return bytes;
}

/// Printable ASCII without what separates keys: "MUST NOT contain spaces and commas".
bool is_metadata_key(std::string_view key) {
  return !key.empty() && std::all_of(key.begin(), key.end(),
                                     [](char c) { return c > ' ' && c < '\x7f' && c != ','; });
}

UploadId id_of_url(std::string_view url, std::string_view base_path) {
  const std::string_view path = path_of(url);
  std::optional<UploadId> id;
  if (path.starts_with(base_path)) id = UploadId::parse(path.substr(base_path.size()));
  if (!id) throw HttpError(status::bad_request, "Upload-Concat names no upload of this server");
  return *id;
}

}  // namespace

std::string_view path_of(std::string_view url) {
  const std::size_t scheme = url.find("://");
  if (url.starts_with('/') || scheme == url.npos) return url;
  const std::size_t path = url.find('/', scheme + 3);
  return path == url.npos ? std::string_view("/") : url.substr(path);
}

std::uint64_t parse_number(std::string_view name, std::string_view text) {
  std::int64_t number = -1;  // SQLite's integers have 63 bits.
  const bool digits = !text.empty() && text.find_first_not_of("0123456789") == text.npos;
  if (!digits ||
      std::from_chars(text.data(), text.data() + text.size(), number).ec != std::errc()) {
    throw HttpError(status::bad_request, std::string(name) + " is not a number from 0 to 2^63 - 1");
  }
  return static_cast<std::uint64_t>(number);
}

Metadata parse_metadata(std::string_view text) {
  Metadata metadata;
  text = trimmed(text);
  while (!text.empty()) {
    std::string_view value = trimmed(take_until(text, ','));
    const std::string_view key = take_until(value, ' ');
    if (!is_metadata_key(key)) throw HttpError(status::bad_request, "Upload-Metadata: a bad key");
    if (metadata.find(key) != nullptr) {
      throw HttpError(status::bad_request, "Upload-Metadata: a key stands there twice");
    }
    const std::optional<std::string> bytes = decode_base64(value);
    if (!bytes) throw HttpError(status::bad_request, "Upload-Metadata: a value is not base64");
    if (bytes->empty()) {  // The protocol knows no other empty value.
      metadata.set_flag(key);
      continue;
    }
    try {
      metadata.set(key, *bytes);
    } catch (const tidemark::StorageError&) {  // Not UTF-8.
      metadata.set_binary(key, std::as_bytes(std::span(*bytes)));
    }
  }
  return metadata;
}

std::string format_metadata(const Metadata& metadata) {
  std::string text;
  for (const Metadata::Entry& entry : metadata) {
    if (!is_metadata_key(entry.key)) continue;  // Of another implementation; has no spelling here.
    if (!text.empty()) text += ',';
    text += entry.key;
    if (!entry.value.empty()) text += ' ' + examples::encode_base64(entry.value);
  }
  return text;
}

ExpectedDigest parse_checksum(std::string_view text) {
  static constexpr std::array<std::pair<std::string_view, std::size_t>, 4> k_digests{
      {{"sha1", 20}, {"sha256", 32}, {"md5", 16}, {"crc32", 4}}};
  const std::string_view name = take_until(text, ' ');
  const auto* const known = std::find_if(k_digests.begin(), k_digests.end(),
                                         [&](const auto& each) { return each.first == name; });
  if (known == k_digests.end()) {
    throw HttpError(status::bad_request, "Upload-Checksum: an unknown algorithm");
  }
  std::optional<std::string> digest = decode_base64(trimmed(text));
  if (!digest || digest->size() != known->second) {
    throw HttpError(status::bad_request, "Upload-Checksum: not a digest of that algorithm");
  }
  return {static_cast<DigestAlgorithm>(known - k_digests.begin()), *std::move(digest)};
}

Concatenation parse_concat(std::string_view text, std::string_view base_path) {
  if (text == "partial") return {.partial = true};
  if (!text.starts_with("final;")) {
    throw HttpError(status::bad_request, "Upload-Concat is neither partial nor final");
  }
  text.remove_prefix(6);
  Concatenation concatenation;
  while (!(text = trimmed(text)).empty()) {
    concatenation.parts.push_back(id_of_url(take_until(text, ' '), base_path));
  }
  if (concatenation.parts.size() > k_max_parts) {
    throw HttpError(status::bad_request, "Upload-Concat names more than 512 parts");
  }
  if (concatenation.parts.empty()) {
    throw HttpError(status::bad_request, "Upload-Concat: a final upload without parts");
  }
  return concatenation;
}

std::string format_concat(const std::vector<UploadId>& parts, std::string_view base_path) {
  std::string text = "final;";
  for (const UploadId& part : parts) {
    if (text.back() != ';') text += ' ';
    text += base_path;
    text += part.view();
  }
  return text;
}

std::optional<ByteRange> parse_range(std::string_view text, std::uint64_t size) {
  // A value that is not understood is ignored (RFC 9110, 14.2); so are several ranges.
  const auto number = [](std::string_view digits) -> std::optional<std::uint64_t> {
    if (digits.empty() || digits.find_first_not_of("0123456789") != digits.npos) return {};
    std::uint64_t value = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    return error == std::errc() ? value : UINT64_MAX;
  };
  if (!text.starts_with("bytes=")) return {};
  text.remove_prefix(6);
  const std::size_t dash = text.find('-');
  if (dash == text.npos) return {};
  const std::optional<std::uint64_t> first = number(text.substr(0, dash));
  const std::string_view end = text.substr(dash + 1);
  const std::optional<std::uint64_t> last = number(end);
  if ((!last && !end.empty()) || (!first && (dash != 0 || !last))) return {};
  if (first && last && *last < *first) return {};
  if (size == 0 || (first && *first >= size) || (!first && *last == 0)) {
    throw HttpError(status::range_not_satisfiable, "the range lies beyond the content");
  }
  if (!first) return ByteRange{size - std::min(*last, size), size - 1};
  return ByteRange{*first, std::min(last.value_or(size - 1), size - 1)};
}

std::string format_time(std::chrono::sys_seconds time, const char* format) {
  const std::time_t seconds = std::chrono::system_clock::to_time_t(time);
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  std::array<char, 64> text{};
  return {text.data(), std::strftime(text.data(), text.size(), format, &parts)};
}

std::string format_http_date(std::chrono::sys_seconds time) {
  return format_time(time, "%a, %d %b %Y %H:%M:%S GMT");
}

std::string format_disposition(const Metadata& metadata) {
  const Metadata::Entry* name = metadata.find("filename");
  if (name == nullptr) name = metadata.find("name");
  if (name == nullptr || name->value.empty() || name->kind != Metadata::Kind::text) {
    return "attachment";
  }
  std::string text = "attachment; filename*=UTF-8''";  // RFC 6266 and RFC 8187.
  constexpr std::string_view k_digits = "0123456789ABCDEF";
  for (const char c : name->value) {
    const bool plain = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
                       c == '.' || c == '-' || c == '_';
    if (plain) {
      text += c;
    } else {
      const auto byte = static_cast<unsigned char>(c);
      text += {'%', k_digits[byte >> 4U], k_digits[byte & 15U]};
    }
  }
  return text;
}

std::string_view safe_content_type(const Metadata& metadata) {
  static constexpr std::array<std::string_view, 16> k_safe{
      "application/gzip", "application/pdf", "application/zip", "audio/flac",
      "audio/mpeg",       "audio/ogg",       "audio/wav",       "image/avif",
      "image/gif",        "image/jpeg",      "image/png",       "image/webp",
      "text/plain",       "video/mp4",       "video/ogg",       "video/webm"};
  const Metadata::Entry* type = metadata.find("filetype");
  if (type == nullptr) type = metadata.find("type");
  if (type != nullptr) {
    const auto* const found = std::find(k_safe.begin(), k_safe.end(), type->value);
    if (found != k_safe.end()) return *found;
  }
  return "application/octet-stream";
}

}  // namespace tus
