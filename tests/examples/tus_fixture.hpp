#pragma once

// What the tests of examples/tus_server share.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unistd.h>
#include <utility>
#include <vector>

#include "ingest_fixture.hpp"
#include "tus_server_process.hpp"

namespace tidemark::test {

using Fields = std::vector<std::pair<std::string_view, std::string>>;

inline const std::string k_offset_octets = "application/offset+octet-stream";

/// The value of a header; empty when it is not there.
inline std::string field(const HttpResponse& response, std::string_view name) {
  const auto value = response[{name.data(), name.size()}];
  return {value.data(), value.size()};
}

/// Asks again and again, because what another process does cannot be waited for.
inline void wait_until(const std::function<bool()>& happened) {
  while (!happened()) ::usleep(1000);
}

inline void wait_for_metric(HttpConnection& http, const std::string& line) {
  wait_until([&] {
    const std::string metrics = http.ask("GET", "/metrics", {}).body();
    return metrics.find('\n' + line + '\n') != std::string::npos;
  });
}

/// A server in a fresh folder, and one connection to it.
struct TusFixture {
  explicit TusFixture(std::vector<std::string> options = {})
      : server(folder.path(), std::move(options)), http(server) {}

  /// A request of the protocol, with its version.
  HttpResponse tus(std::string_view method, std::string_view target, Fields fields,
                   std::string_view body = {}) {
    fields.emplace_back("Tus-Resumable", "1.0.0");
    return http.ask(method, target, fields, body);
  }
  HttpResponse head(std::string_view location) { return tus("HEAD", location, {}); }
  HttpResponse patch(std::string_view location, std::uint64_t offset, std::string_view body,
                     Fields fields = {}) {
    fields.emplace_back("Content-Type", k_offset_octets);
    fields.emplace_back("Upload-Offset", std::to_string(offset));
    return tus("PATCH", location, std::move(fields), body);
  }

  /// Where a new upload is.
  std::string create(std::uint64_t length, Fields fields = {}) {
    fields.emplace_back("Upload-Length", std::to_string(length));
    return field(tus("POST", "/files/", std::move(fields)), "Location");
  }

  /// The offset that HEAD tells.
  std::uint64_t offset(std::string_view location) {
    return std::stoull(field(head(location), "Upload-Offset"));
  }
  std::string content(std::string_view location) { return http.ask("GET", location, {}).body(); }

  std::filesystem::path data_file(std::string_view location) const {
    return folder / "data" / "uploads" / location.substr(7);
  }
  /// What the database says, without asking the server.
  std::uint64_t row(std::string_view location) const {
    return row_offset(folder / "data" / "uploads.db", location.substr(7)).value_or(0);
  }

  TemporaryFolder folder;
  TusServer server;
  HttpConnection http;
};

/// The header of a PATCH whose body is sent later.
inline std::string patch_header(std::string_view location, std::uint64_t offset,
                                std::string_view more) {
  return "PATCH " + std::string(location) +
         " HTTP/1.1\r\nHost: x\r\nTus-Resumable: 1.0.0\r\n"
         "Content-Type: application/offset+octet-stream\r\nUpload-Offset: " +
         std::to_string(offset) + "\r\n" + std::string(more) + "\r\n\r\n";
}

/// A whole HEAD, for whoever does not wait for its answer at once.
inline std::string head_request(std::string_view location) {
  return "HEAD " + std::string(location) + " HTTP/1.1\r\nHost: x\r\nTus-Resumable: 1.0.0\r\n\r\n";
}

/// `bytes` as one chunk of a chunked body.
inline std::string chunk(std::string_view bytes) {
  char size[20];
  std::snprintf(size, sizeof size, "%zx\r\n", bytes.size());
  return size + std::string(bytes) + "\r\n";
}

}  // namespace tidemark::test
