#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/message.hpp>
#include <boost/beast/http/string_body.hpp>

#include <tidemark/storage/metadata.hpp>
#include <tidemark/storage/upload.hpp>
#include <tidemark/storage/upload_id.hpp>

#include "header_values.hpp"
#include "http_error.hpp"

/// What a request asks for, and how an answer says it: the tus protocol 1.0.0 with its extensions,
/// apart from connections and storage. Pure functions, any thread.
namespace tus {

namespace http = boost::beast::http;
using RequestHeader = http::request_header<>;
using Response = http::response<http::string_body>;

struct ProtocolOptions {
  std::string base_path = "/files/";  // Begins and ends with a slash.
  std::optional<std::uint64_t> max_size = {};
  bool permits_deferred_length = true;
};

/// What a request asks for, as its header says it; the body is still to come.
namespace action {

struct Capabilities {};  // OPTIONS.
struct Create {
  std::optional<std::uint64_t> length = {};  // Empty: told later.
  tidemark::Metadata metadata = {};
  Concatenation concatenation = {};
  bool has_bytes = false;  // creation-with-upload: the body is the upload's first bytes.
  std::optional<ExpectedDigest> checksum = {};
  bool checksum_follows = false;  // In the trailer.
};
struct Append {
  tidemark::UploadId id;
  std::uint64_t offset = 0;
  std::optional<std::uint64_t> length = {};  // Tells a deferred one.
  std::optional<ExpectedDigest> checksum = {};
  bool checksum_follows = false;
};
struct TellOffset {
  tidemark::UploadId id;
};
struct Terminate {
  tidemark::UploadId id;
};
struct GetContent {
  tidemark::UploadId id;
  bool header_only = false;
};
struct ListUploads {
  std::optional<tidemark::UploadId> after = {};
  std::size_t limit = 100;
};
struct TellHealth {};
struct TellMetrics {};
struct GetPage {
  std::string path;
};

}  // namespace action

using Action =
    std::variant<action::Capabilities, action::Create, action::Append, action::TellOffset,
                 action::Terminate, action::GetContent, action::ListUploads, action::TellHealth,
                 action::TellMetrics, action::GetPage>;

/// Throws HttpError for a request that the protocol does not allow.
Action interpret(const RequestHeader& request, const ProtocolOptions& options);

/// An answer without a body. Each function below adds to one what its name says.
Response make_response(http::status status);
/// The answer to a request that failed: the sentence as text.
Response make_error(const HttpError& error, const ProtocolOptions& options);
Response tell_capabilities(const ProtocolOptions& options);
/// HEAD, for an upload that stands at its offset.
Response tell_offset(const tidemark::Upload& upload, const ProtocolOptions& options);
void add_expiry(Response& response, const tidemark::Upload& upload);

/// The header of an answer with the first `size` bytes of an upload, or the range of them that was
/// asked for. `range` is what the body holds; none: it has no body.
struct Content {
  Response header;
  std::optional<ByteRange> range;
};
Content describe_content(const RequestHeader& request, const action::GetContent& wanted,
                         const tidemark::Upload& upload);

/// An uploads page as JSON: as many of them as make a text of moderate size, and at least one.
std::string format_listing(const std::vector<tidemark::Upload>& uploads,
                           const std::optional<tidemark::UploadId>& next);

/// A new id: the time that is left, so that the newest comes first in a listing, and 74 random
/// bits. That of a partial upload says so, since storage has no word for it.
tidemark::UploadId make_id(bool partial, std::chrono::system_clock::time_point now);
bool is_partial(const tidemark::UploadId& id);

}  // namespace tus
