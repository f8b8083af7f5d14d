// Any bytes as a sequence of requests on one connection, parsed as examples/tus_server does,
// against the protocol and a model of the storage: no request makes an answer that breaks HTTP, an
// offset only grows, and never beyond the length.

#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include <boost/asio/buffer.hpp>
#include <boost/beast/http/parser.hpp>

#include "../../examples/tus_server/protocol.hpp"
#include "property.hpp"

using namespace tidemark;
using namespace tidemark::test;

namespace {

namespace http = boost::beast::http;
namespace action = tus::action;

/// A storage that has neither bytes nor time.
class Model {
 public:
  tus::Response operator()(const action::Create& wanted) {
    require(wanted.concatenation.parts.empty() || !wanted.length, "a final upload has no length");
    require(!wanted.length || *wanted.length <= k_max_size, "Tus-Max-Size holds");
    require(!wanted.checksum || wanted.has_bytes, "a checksum is of bytes");
    // Ids that a fuzzer can guess.
    const std::string id = std::string(1, static_cast<char>('a' + uploads_.size() % 26)) +
                           (wanted.concatenation.partial ? "-part" : "");
    Upload upload{UploadId(id), wanted.length};
    upload.metadata = wanted.metadata;
    upload.parts = wanted.concatenation.parts;
    upload.completed = wanted.length == 0U;
    uploads_.insert_or_assign(id, upload);
    tus::Response response = tus::make_response(http::status::created);
    response.set(http::field::location, options.base_path + id);
    return response;
  }
  tus::Response operator()(const action::Append& wanted) {
    Upload& upload = find(wanted.id);
    if (wanted.offset != upload.offset) throw tus::HttpError(http::status::conflict, "offset");
    if (wanted.length && !upload.length && *wanted.length >= upload.offset) {
      upload.length = wanted.length;
    }
    const std::uint64_t room = upload.length.value_or(k_max_size) - upload.offset;
    upload.offset += std::min<std::uint64_t>(room, 10);
    upload.completed = upload.length == upload.offset;
    return tus::make_response(http::status::no_content);
  }
  tus::Response operator()(const action::TellOffset& wanted) {
    return tus::tell_offset(find(wanted.id), options);
  }
  tus::Response operator()(const action::Terminate& wanted) {
    find(wanted.id);
    uploads_.erase(std::string(wanted.id.view()));
    return tus::make_response(http::status::no_content);
  }
  tus::Response operator()(const action::GetContent& wanted) {
    const Upload& upload = find(wanted.id);
    tus::Content content = tus::describe_content(*request, wanted, upload);
    if (content.range) {
      require(content.range->first <= content.range->last && content.range->last < upload.offset,
              "only committed bytes are given");
    }
    return std::move(content.header);
  }
  tus::Response operator()(const action::ListUploads& wanted) {
    require(wanted.limit >= 1 && wanted.limit <= 100, "a page is bounded");
    std::vector<Upload> uploads;
    for (const auto& each : uploads_) uploads.push_back(each.second);
    tus::Response response = tus::make_response(http::status::ok);
    response.body() = tus::format_listing(uploads, wanted.after);
    return response;
  }
  tus::Response operator()(const action::Capabilities& /*wanted*/) {
    return tus::tell_capabilities(options);
  }
  tus::Response operator()(const auto& /*a page, the health, the metrics*/) {
    return tus::make_response(http::status::ok);
  }

  static constexpr std::uint64_t k_max_size = 1000;
  const tus::ProtocolOptions options{.base_path = "/files/", .max_size = k_max_size};
  const tus::RequestHeader* request = nullptr;

 private:
  Upload& find(const UploadId& id) {
    const auto found = uploads_.find(std::string(id.view()));
    if (found == uploads_.end()) throw tus::HttpError(http::status::not_found, "no upload");
    return found->second;
  }

  std::map<std::string, Upload> uploads_;
};

void check(const tus::Response& response) {
  const unsigned code = response.result_int();
  require(code >= 200 && code < 500, "no request makes the server fail");
  require(response["Tus-Resumable"] == "1.0.0", "every answer tells the version");
  for (const auto& field : response) {
    for (const char c : field.value()) require(c >= ' ' && c < '\x7f', "a header stays one line");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::string_view text = as_text(data, size);
  Model model;
  for (int requests = 0; requests < 64 && !text.empty(); ++requests) {
    http::request_parser<http::empty_body> parser;
    parser.header_limit(64 << 10);
    boost::system::error_code error;
    text.remove_prefix(parser.put(boost::asio::buffer(text.data(), text.size()), error));
    if (error || !parser.is_header_done()) return 0;
    model.request = &parser.get();
    try {
      check(std::visit(model, tus::interpret(parser.get(), model.options)));
    } catch (const tus::HttpError& refusal) {
      check(tus::make_error(refusal, model.options));
    }
  }
  return 0;
}
