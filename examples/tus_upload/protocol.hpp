#pragma once

// What the tus protocol and its users agreed on, as functions of their arguments alone.

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include <boost/url/url.hpp>

namespace examples {

using Url = boost::urls::url;

/// How often an upload is tried again without any progress in between.
inline constexpr unsigned k_max_retries = 8;

/// A URL to send requests to: http, without a user name. It has a path, and no fragment. Throws
/// std::runtime_error for anything else.
Url parse_url(std::string_view text);

/// Where `location`, absolute or relative, leads from `base`. Throws std::runtime_error when that
/// is no such URL, or one of another server.
Url resolve_location(const Url& base, std::string_view location);

bool is_same_server(const Url& a, const Url& b);
std::string port_of(const Url& url);

/// The name of a file's bytes in the URL store, as the Python package `resumable-upload` writes it.
std::string fingerprint_of(std::uint64_t size, std::string_view sha256_hex);
/// The name of the part that is number `part`, counted from 1, of `parts`.
std::string part_fingerprint(std::string_view fingerprint, std::size_t part, std::size_t parts);

/// The value of Upload-Checksum, by the one algorithm that every server must know.
std::string checksum_value(std::string_view sha1);
/// The value of Upload-Metadata for a file name, which may be any bytes.
std::string metadata_value(std::string_view filename);
/// The value of Upload-Concat for the upload that consists of `parts`.
std::string final_value(std::span<const Url> parts);

/// A count of bytes as a header gives it; nothing when it is no number below 2^63.
std::optional<std::uint64_t> parse_bytes(std::string_view text);

/// Whether a request that got this status may succeed when it is made again.
bool is_transient(unsigned status);
/// The upload is not there any more.
bool is_gone(unsigned status);

/// How long to wait before retry number `retry`, counted from 0. Doubles from 0.1 s to 5 s. Up to
/// half of it is left to `random`, so that not all clients of a server come back at once.
std::chrono::milliseconds backoff(unsigned retry, std::uint64_t random);

}  // namespace examples
