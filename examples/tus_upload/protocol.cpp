#include "protocol.hpp"

#include <algorithm>
#include <charconv>
#include <limits>
#include <stdexcept>

#include <boost/url/parse.hpp>

#include "../base64.hpp"

namespace examples {

Url parse_url(std::string_view text) {
  const auto fail = [text](const std::string& why) {
    throw std::runtime_error("'" + std::string(text) + "': " + why);
  };
  const auto parsed = boost::urls::parse_uri({text.data(), text.size()});
  if (parsed.has_error()) fail("not a URL such as http://host:1080/files/");
  Url url = parsed.value();
  url.normalize();
  if (url.scheme() == "https") fail("https is not supported, only http");
  if (url.scheme() != "http") fail("not an http URL");
  if (url.encoded_host().empty()) fail("the URL has no host");
  if (url.has_userinfo()) fail("user names in URLs are not supported");
  if (url.has_port() && url.port_number() == 0) fail("no such port");
  url.remove_fragment();
  if (url.encoded_path().empty()) url.set_encoded_path("/");
  return url;
}

Url resolve_location(const Url& base, std::string_view location) {
  const auto reference = boost::urls::parse_uri_reference({location.data(), location.size()});
  Url resolved = base;
  if (reference.has_error() || resolved.resolve(reference.value()).has_error()) {
    throw std::runtime_error("the server gave a location that is no URL");
  }
  resolved = parse_url({resolved.data(), resolved.size()});
  if (!is_same_server(resolved, base)) {
    throw std::runtime_error("the server gave a location on another server, " +
                             std::string(resolved.buffer()));
  }
  return resolved;
}

bool is_same_server(const Url& a, const Url& b) {
  return a.encoded_host() == b.encoded_host() && port_of(a) == port_of(b);
}

std::string port_of(const Url& url) {
  return url.port().empty() ? "80" : std::string(url.port());
}

std::string fingerprint_of(std::uint64_t size, std::string_view sha256_hex) {
  return "size:" + std::to_string(size) + "--sha256:" + std::string(sha256_hex);
}

std::string part_fingerprint(std::string_view fingerprint, std::size_t part, std::size_t parts) {
  return std::string(fingerprint) + "--part:" + std::to_string(part) + '/' + std::to_string(parts);
}

std::string checksum_value(std::string_view sha1) {
  return "sha1 " + encode_base64(sha1);
}

std::string metadata_value(std::string_view filename) {
  return "filename " + encode_base64(filename);
}

std::string final_value(std::span<const Url> parts) {
  std::string value = "final;";
  for (const Url& part : parts) {
    if (&part != &parts.front()) value += ' ';
    value.append(part.data(), part.size());
  }
  return value;
}

std::optional<std::uint64_t> parse_bytes(std::string_view text) {
  constexpr auto k_max = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  std::uint64_t bytes = 0;
  const char* const begin = text.data();
  const char* const end = begin + text.size();
  const auto [rest, error] = std::from_chars(begin, end, bytes);
  if (error != std::errc() || rest != end || bytes > k_max) return std::nullopt;
  return bytes;
}

bool is_transient(unsigned status) {
  constexpr unsigned k_checksum_mismatch = 460;
  return status == 408 || status == 409 || status == 423 || status == 429 ||
         status == k_checksum_mismatch || (status >= 500 && status != 501);
}

bool is_gone(unsigned status) {
  return status == 404 || status == 410;
}

std::chrono::milliseconds backoff(unsigned retry, std::uint64_t random) {
  const std::uint64_t longest = std::min<std::uint64_t>(std::uint64_t{100} << retry, 5000);
  return std::chrono::milliseconds(longest / 2 + random % (longest / 2 + 1));
}

}  // namespace examples
