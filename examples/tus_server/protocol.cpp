#include "protocol.hpp"

#include <algorithm>
#include <cstdio>
#include <string_view>
#include <utility>

#include <boost/algorithm/string/predicate.hpp>
#include <boost/beast/http/rfc7230.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <boost/uuid/random_generator.hpp>
#include <boost/uuid/uuid_io.hpp>

#include <tidemark/storage/storage.hpp>

namespace tus {
namespace {

using http::field;
using http::status;
using http::verb;
using tidemark::Upload;
using tidemark::UploadId;

constexpr std::string_view k_version = "1.0.0";
constexpr std::string_view k_extensions =
    "creation,creation-with-upload,termination,expiration,checksum,checksum-trailer,concatenation,"
    "concatenation-unfinished";
constexpr std::string_view k_deferring_extension = ",creation-defer-length";
constexpr std::string_view k_methods = "POST, GET, HEAD, PATCH, DELETE, OPTIONS";
constexpr std::string_view k_asked_headers =
    "Authorization, Content-Type, If-None-Match, If-Range, Range, Tus-Resumable, Upload-Checksum, "
    "Upload-Concat, Upload-Defer-Length, Upload-Length, Upload-Metadata, Upload-Offset, "
    "X-HTTP-Method-Override, X-Request-ID, X-Requested-With";
constexpr std::string_view k_told_headers =
    "Accept-Ranges, Content-Disposition, Content-Range, ETag, Location, Tus-Checksum-Algorithm, "
    "Tus-Extension, "
    "Tus-Max-Size, Tus-Resumable, Tus-Version, Upload-Concat, Upload-Defer-Length, "
    "Upload-Expires, Upload-Length, Upload-Metadata, Upload-Offset";
constexpr std::string_view k_body_type = "application/offset+octet-stream";
constexpr std::string_view k_partial_suffix = "-part";
constexpr std::size_t k_max_metadata_bytes = 8 << 10;  // Of the header.

/// A header's value; none when it is not there. Twice with different values is refused: a proxy
/// before this server may have read the other one.
std::optional<std::string_view> value_of(const RequestHeader& request, std::string_view name) {
  const auto [first, last] = request.equal_range({name.data(), name.size()});
  if (first == last) return std::nullopt;
  const auto view = [](const auto& each) {
    return std::string_view(each.value().data(), each.value().size());
  };
  for (auto each = std::next(first); each != last; ++each) {
    if (view(*each) != view(*first)) {
      throw HttpError(status::bad_request, std::string(name) + " stands there twice");
    }
  }
  return view(*first);
}

std::optional<std::uint64_t> number_of(const RequestHeader& request, std::string_view name) {
  const std::optional<std::string_view> text = value_of(request, name);
  if (!text) return std::nullopt;
  return parse_number(name, *text);
}

verb method_of(const RequestHeader& request) {
  const std::optional<std::string_view> other = value_of(request, "X-HTTP-Method-Override");
  return other ? http::string_to_verb({other->data(), other->size()}) : request.method();
}

void check_version(const RequestHeader& request) {
  if (value_of(request, "Tus-Resumable") != k_version) {
    throw HttpError(status::precondition_failed, "Tus-Resumable is not 1.0.0");
  }
}

std::optional<std::uint64_t> length_of(const RequestHeader& request,
                                       const ProtocolOptions& options) {
  const std::optional<std::uint64_t> length = number_of(request, "Upload-Length");
  if (length && options.max_size && *length > *options.max_size) {
    throw HttpError(status::payload_too_large, "Upload-Length is above Tus-Max-Size");
  }
  return length;
}

/// Sets the digest that the body is to have, or that its trailer tells it.
template <class BodyAction>
void read_checksum(const RequestHeader& request, BodyAction& to) {
  if (const auto text = value_of(request, "Upload-Checksum")) {
    to.checksum = parse_checksum(*text);
    return;
  }
  const auto trailer = value_of(request, "Trailer");
  if (!trailer) return;
  for (const auto name : http::token_list({trailer->data(), trailer->size()})) {
    to.checksum_follows |=
        boost::iequals(std::string_view(name.data(), name.size()), "Upload-Checksum");
  }
}

action::Create interpret_creation(const RequestHeader& request, const ProtocolOptions& options) {
  check_version(request);
  action::Create create;
  create.length = length_of(request, options);
  if (const auto text = value_of(request, "Upload-Metadata")) {
    if (text->size() > k_max_metadata_bytes) {
      throw HttpError(status::request_header_fields_too_large,
                      "Upload-Metadata is longer than 8192 bytes");
    }
    create.metadata = parse_metadata(*text);
  }
  if (const auto text = value_of(request, "Upload-Concat")) {
    create.concatenation = parse_concat(*text, options.base_path);
  }
  const auto deferred = value_of(request, "Upload-Defer-Length");
  if (deferred && *deferred != "1") {
    throw HttpError(status::bad_request, "Upload-Defer-Length is not 1");
  }
  if (deferred && !options.permits_deferred_length) {
    throw HttpError(status::bad_request, "this server has a quota: Upload-Length must be there");
  }
  const bool is_final = !create.concatenation.parts.empty();
  if (is_final ? create.length || deferred : create.length.has_value() == deferred.has_value()) {
    throw HttpError(status::bad_request,
                    is_final ? "a final upload has the length of its parts"
                             : "one of Upload-Length and Upload-Defer-Length must be there");
  }
  const auto type = value_of(request, "Content-Type");
  create.has_bytes = type && boost::iequals(*type, k_body_type);
  if (create.has_bytes) {
    if (is_final) throw HttpError(status::forbidden, "a final upload takes no bytes");
    read_checksum(request, create);
  }
  return create;
}

action::Append interpret_append(const RequestHeader& request, UploadId id,
                                const ProtocolOptions& options) {
  check_version(request);
  const auto type = value_of(request, "Content-Type");
  if (!type || !boost::iequals(*type, k_body_type)) {
    throw HttpError(status::unsupported_media_type,
                    "Content-Type is not " + std::string(k_body_type));
  }
  const std::optional<std::uint64_t> offset = number_of(request, "Upload-Offset");
  if (!offset) throw HttpError(status::bad_request, "Upload-Offset is missing");
  action::Append append{.id = id, .offset = *offset, .length = length_of(request, options)};
  read_checksum(request, append);
  return append;
}

action::ListUploads interpret_listing(std::string_view query) {
  constexpr std::size_t k_max_listing = 100;
  action::ListUploads listing;
  while (!query.empty()) {
    const std::string_view pair = query.substr(0, query.find('&'));
    query.remove_prefix(std::min(pair.size() + 1, query.size()));
    if (pair.starts_with("after=")) {
      listing.after = UploadId::parse(pair.substr(6));
      if (!listing.after) throw HttpError(status::bad_request, "after is no upload's id");
    } else if (pair.starts_with("limit=")) {
      const std::uint64_t limit = parse_number("limit", pair.substr(6));
      if (limit < 1 || limit > k_max_listing) {
        throw HttpError(status::bad_request, "limit is not from 1 to 100");
      }
      listing.limit = limit;
    }
  }
  return listing;
}

[[noreturn]] void refuse_method() {
  throw HttpError(status::method_not_allowed, "not a method for this address");
}

Action interpret_upload(verb method, const RequestHeader& request, UploadId id,
                        const ProtocolOptions& options) {
  switch (method) {
    case verb::patch:
      return interpret_append(request, id, options);
    case verb::delete_:
      check_version(request);
      return action::Terminate{id};
    case verb::get:
      return action::GetContent{id};
    case verb::head:
      // Only the protocol's clients send its version: the others ask for the content.
      if (!value_of(request, "Tus-Resumable")) return action::GetContent{id, true};
      check_version(request);
      return action::TellOffset{id};
    default:
      refuse_method();
  }
}

Action interpret_other(verb method, std::string_view path) {
  if (method != verb::get && method != verb::head) refuse_method();
  if (path == "/healthz") return action::TellHealth{};
  if (path == "/metrics") return action::TellMetrics{};
  return action::GetPage{std::string(path)};
}

/// Whether the client has what `tag` names: a list, perhaps of weak tags and on several lines.
bool is_known(const RequestHeader& request, const std::string& tag) {
  const auto [first, last] = request.equal_range(field::if_none_match);
  return std::any_of(first, last, [&](const auto& line) {
    return line.value() == "*" || line.value().find(tag) != line.value().npos;
  });
}

}  // namespace

Action interpret(const RequestHeader& request, const ProtocolOptions& options) {
  if (request.version() >= 11 && request.count(field::host) != 1) {
    throw HttpError(status::bad_request, "Host must stand there once");
  }
  const verb method = method_of(request);
  if (method == verb::options) return action::Capabilities{};
  const std::string_view target = path_of({request.target().data(), request.target().size()});
  const std::string_view path = target.substr(0, target.find('?'));
  const bool is_base =
      path == options.base_path ||
      path == std::string_view(options.base_path).substr(0, options.base_path.size() - 1);
  if (is_base && method == verb::post) return interpret_creation(request, options);
  if (is_base) {
    if (method != verb::get) refuse_method();
    return interpret_listing(target.substr(std::min(path.size() + 1, target.size())));
  }
  if (!path.starts_with(options.base_path)) return interpret_other(method, path);
  const std::optional<UploadId> id = UploadId::parse(path.substr(options.base_path.size()));
  if (id) return interpret_upload(method, request, *id, options);
  throw HttpError(status::not_found, "there is no such upload");
}

Response make_response(http::status status) {
  Response response(status, 11);
  response.set("Tus-Resumable", k_version);
  response.set(field::access_control_allow_origin, "*");
  response.set(field::access_control_expose_headers, k_told_headers);
  response.set("X-Content-Type-Options", "nosniff");
  return response;
}

Response make_error(const HttpError& error, const ProtocolOptions& options) {
  Response response = make_response(error.status());
  if (error.status() == k_checksum_mismatch) response.reason("Checksum Mismatch");
  if (error.status() == status::precondition_failed) response.set("Tus-Version", k_version);
  if (error.status() == status::method_not_allowed) response.set(field::allow, k_methods);
  if (error.status() == status::payload_too_large && options.max_size) {
    response.set("Tus-Max-Size", std::to_string(*options.max_size));
  }
  response.set(field::content_type, "text/plain; charset=utf-8");
  response.set(field::cache_control, "no-store");
  response.body() = std::string(error.what()) + '\n';
  return response;
}

Response tell_capabilities(const ProtocolOptions& options) {
  Response response = make_response(status::no_content);
  response.set("Tus-Version", k_version);
  std::string extensions(k_extensions);
  if (options.permits_deferred_length) extensions += k_deferring_extension;
  response.set("Tus-Extension", extensions);
  response.set("Tus-Checksum-Algorithm", k_digest_algorithms);
  if (options.max_size) response.set("Tus-Max-Size", std::to_string(*options.max_size));
  response.set(field::access_control_allow_methods, k_methods);
  response.set(field::access_control_allow_headers, k_asked_headers);
  response.set(field::access_control_max_age, "86400");
  return response;
}

Response tell_offset(const Upload& upload, const ProtocolOptions& options) {
  Response response = make_response(status::ok);
  response.set(field::cache_control, "no-store");
  const bool unfinished_final = !upload.parts.empty() && !upload.completed;
  if (!unfinished_final) response.set("Upload-Offset", std::to_string(upload.offset));
  if (upload.length) {
    response.set("Upload-Length", std::to_string(*upload.length));
  } else if (!unfinished_final) {
    response.set("Upload-Defer-Length", "1");
  }
  if (!upload.metadata.empty()) {
    response.set("Upload-Metadata", format_metadata(upload.metadata));
  }
  if (!upload.parts.empty()) {
    response.set("Upload-Concat", format_concat(upload.parts, options.base_path));
  } else if (is_partial(upload.id)) {
    response.set("Upload-Concat", "partial");
  }
  add_expiry(response, upload);
  return response;
}

void add_expiry(Response& response, const Upload& upload) {
  if (!upload.expires_at || upload.completed) return;
  response.set("Upload-Expires",
               format_http_date(std::chrono::floor<std::chrono::seconds>(*upload.expires_at)));
}

Content describe_content(const RequestHeader& request, const action::GetContent& wanted,
                         const Upload& upload) {
  // Whatever the offset, a byte below it never changes: the id names it for good, and a range goes
  // on where the last one ended. Only a finished upload is the whole.
  const std::string tag = '"' + std::string(upload.id.view()) + '"';
  const std::string total = upload.length ? std::to_string(*upload.length) : "*";
  Content content{make_response(status::ok), {}};
  Response& header = content.header;
  header.set(field::etag, tag);
  header.set(field::accept_ranges, "bytes");
  header.set(field::cache_control, upload.completed ? "private, no-cache" : "no-store");
  if (upload.completed && is_known(request, tag)) {
    header.result(status::not_modified);
    return content;
  }
  header.set(field::content_type, safe_content_type(upload.metadata));
  header.set(field::content_disposition, format_disposition(upload.metadata));
  header.set("Content-Security-Policy", "sandbox; default-src 'none'");
  const auto range = wanted.header_only ? std::nullopt : value_of(request, "Range");
  const auto condition = value_of(request, "If-Range");
  std::optional<ByteRange> part;
  try {
    if (range && (!condition || *condition == tag)) part = parse_range(*range, upload.offset);
  } catch (const HttpError& error) {
    header.result(error.status());
    header.set(field::content_range, "bytes */" + std::to_string(upload.offset));
    return content;
  }
  if (upload.offset == 0) {  // No range of bytes says that there are none yet.
    if (!upload.completed) header.result(status::no_content);
    return content;
  }
  content.range = part.value_or(ByteRange{0, upload.offset - 1});
  if (part || !upload.completed) {
    header.result(status::partial_content);
    header.set(field::content_range, "bytes " + std::to_string(content.range->first) + '-' +
                                         std::to_string(content.range->last) + '/' + total);
  }
  return content;
}

std::string format_listing(const std::vector<Upload>& uploads,
                           const std::optional<UploadId>& next) {
  constexpr const char* k_time = "%Y-%m-%dT%H:%M:%SZ";
  constexpr std::size_t k_enough_bytes = 256 << 10;
  std::string text = "{\"uploads\":[";
  const UploadId* last = nullptr;
  for (const Upload& upload : uploads) {
    if (text.size() >= k_enough_bytes) break;
    if (last != nullptr) text += ',';
    boost::json::object metadata;
    for (const auto& entry : upload.metadata) {  // Binary values have no form in JSON.
      boost::json::value& value = metadata[entry.key];
      if (entry.kind == tidemark::Metadata::Kind::text) value = entry.value;
    }
    boost::json::object object;
    object["id"] = upload.id.view();
    object["length"] = nullptr;
    if (upload.length) object["length"] = *upload.length;
    object["offset"] = upload.offset;
    object["completed"] = upload.completed;
    object["partial"] = is_partial(upload.id);
    object["metadata"] = std::move(metadata);
    object["created_at"] = format_time(upload.created_at, k_time);
    object["expires_at"] = nullptr;
    if (upload.expires_at) {
      const auto second = std::chrono::floor<std::chrono::seconds>(*upload.expires_at);
      object["expires_at"] = format_time(second, k_time);
    }
    text += boost::json::serialize(object);
    last = &upload.id;
  }
  const bool is_cut = last != nullptr && *last != uploads.back().id;
  const std::optional<UploadId> after = is_cut ? *last : next;
  // An id needs no escapes.
  return text + "],\"next\":" + (after ? '"' + std::string(after->view()) + '"' : "null") + '}';
}

UploadId make_id(bool partial, std::chrono::system_clock::time_point now) {
  constexpr std::uint64_t k_end_of_time = std::uint64_t{1} << 48;
  constexpr std::size_t k_time_digits = 12;
  thread_local boost::uuids::random_generator generate;
  std::string id = boost::uuids::to_string(generate());
  std::erase(id, '-');
  const auto since = std::chrono::floor<std::chrono::milliseconds>(now.time_since_epoch()).count();
  const std::uint64_t left = (k_end_of_time - static_cast<std::uint64_t>(since)) % k_end_of_time;
  char time[k_time_digits + 1];
  std::snprintf(time, sizeof time, "%012jx", static_cast<std::uintmax_t>(left));
  id.replace(0, k_time_digits, time);
  return partial ? id + std::string(k_partial_suffix) : id;
}

bool is_partial(const UploadId& id) {
  return id.view().ends_with(k_partial_suffix);
}

}  // namespace tus
