#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <tidemark/storage/metadata.hpp>
#include <tidemark/storage/upload.hpp>
#include <tidemark/storage/upload_id.hpp>

/// The values of the headers of tus 1.0.0 (https://tus.io/protocols/resumable-upload) and of the
/// content's (RFC 9110), read and written. Pure functions: no state, any thread. What is wrong with
/// a client's value is an HttpError, `bad_request` where nothing else is said.
namespace tus {

/// A URL, or a request's target, without its scheme and host: those may be any that a proxy is
/// known by.
std::string_view path_of(std::string_view url);

/// Decimal digits only, below 2^63. `name` is the header's, for the error.
std::uint64_t parse_number(std::string_view name, std::string_view text);

/// Upload-Metadata: "key base64,key base64,flag".
tidemark::Metadata parse_metadata(std::string_view text);
std::string format_metadata(const tidemark::Metadata& metadata);

enum class DigestAlgorithm : std::uint8_t { sha1, sha256, md5, crc32 };
inline constexpr std::string_view k_digest_algorithms = "sha1,sha256,md5,crc32";

/// Upload-Checksum: "algorithm base64".
struct ExpectedDigest {
  DigestAlgorithm algorithm = DigestAlgorithm::sha1;
  std::string digest;  // Its bytes.
};
ExpectedDigest parse_checksum(std::string_view text);

/// Upload-Concat: "partial", or "final;URL URL" with at most `k_max_parts` of them.
inline constexpr std::size_t k_max_parts = 512;
struct Concatenation {
  bool partial = false;
  std::vector<tidemark::UploadId> parts = {};
};
Concatenation parse_concat(std::string_view text, std::string_view base_path);
std::string format_concat(const std::vector<tidemark::UploadId>& parts, std::string_view base_path);

/// Range: the first and the last byte of a part of `size` bytes. Empty: the whole, because the
/// value asks for nothing that is understood. Throws `range_not_satisfiable`.
struct ByteRange {
  std::uint64_t first = 0;
  std::uint64_t last = 0;
};
std::optional<ByteRange> parse_range(std::string_view text, std::uint64_t size);

/// In UTC, as strftime spells `format`.
std::string format_time(std::chrono::sys_seconds time, const char* format);
/// "Wed, 21 Oct 2015 07:28:00 GMT"; the form of Upload-Expires.
std::string format_http_date(std::chrono::sys_seconds time);

/// A file name that a browser may suggest, never one that a header could break out of.
std::string format_disposition(const tidemark::Metadata& metadata);
/// What the client said the bytes are, where a browser shows that without running anything of it.
std::string_view safe_content_type(const tidemark::Metadata& metadata);

}  // namespace tus
