#include "service.hpp"

#include <string>
#include <utility>
#include <vector>

#include <boost/algorithm/string/replace.hpp>

#include <tidemark/engine/asio.hpp>

#include "page.hpp"

namespace tus {
namespace {

using http::field;
using http::status;
using tidemark::AppendResult;
using tidemark::AppendStatus;
using tidemark::Errc;
using tidemark::SQLiteStorage;
using tidemark::StorageError;
using tidemark::Task;
using tidemark::Upload;
using tidemark::UploadId;

/// Ends the present writer, if there is one, so that the offset told is the one that stays. With an
/// offset, not one that is further than that.
Task<std::optional<Upload>> settle_upload(SQLiteStorage& storage, UploadId id,
                                          std::optional<std::uint64_t> offset) {
  std::optional<Upload> upload = co_await storage.get_upload(id);
  if (!upload || upload->completed) co_return upload;
  try {
    tidemark::WriterOptions options{.offset = offset, .take_over = true};
    const auto writer = co_await storage.open_writer(id, options);
    co_await writer->close();
  } catch (const StorageError& error) {
    if (error.code() != Errc::already_complete && error.code() != Errc::not_found) throw;
  }
  co_return co_await storage.get_upload(id);
}

/// What became of the body, where the result of the writer does not say it.
void check_body(const RequestBody& body) {
  switch (body.state()) {
    case RequestBody::State::malformed:
      throw HttpError(status::bad_request, "the chunks of the body are malformed");
    case RequestBody::State::timed_out:
      throw HttpError(status::request_timeout, "the body took too long to arrive");
    case RequestBody::State::broken_off:
      throw HttpError(status::bad_request, "the body broke off");
    case RequestBody::State::interrupted:
      throw HttpError(status::service_unavailable, "the server is leaving");
    case RequestBody::State::open:
    case RequestBody::State::complete:
      return;
  }
}

HttpError checksum_mismatch() {
  return {k_checksum_mismatch, "the bytes are not those of Upload-Checksum"};
}

void check_result(const AppendResult& result, const RequestBody& body) {
  switch (result.status) {
    case AppendStatus::committed:
      return check_body(body);
    case AppendStatus::offset_conflict:
      throw HttpError(status::conflict,
                      "the upload stands at offset " + std::to_string(result.offset));
    case AppendStatus::taken_over:
      throw HttpError(status::conflict, "another request has taken the upload over");
    case AppendStatus::checksum_mismatch:
      check_body(body);
      throw checksum_mismatch();
    case AppendStatus::canceled:
      throw HttpError(status::service_unavailable, "the server is leaving");
  }
}

/// For a request that can write nothing: checks its body, and the digest that it told.
Awaitable<void> expect_no_bytes(RequestBody& body, std::optional<ExpectedDigest> checksum,
                                bool checksum_follows, const char* refusal) {
  const bool is_empty = co_await body.is_empty();
  check_body(body);
  if (!is_empty) throw HttpError(status::payload_too_large, refusal);
  if (checksum_follows) checksum = parse_checksum(body.trailer("Upload-Checksum"));
  if (!checksum) co_return;
  BodyDigest digest(checksum->algorithm);
  digest.expect(*checksum);
  if (!digest.matches()) throw checksum_mismatch();
}

}  // namespace

HttpError to_http_error(const StorageError& error) {
  const auto answer = [&](status code) { return HttpError(code, error.code().message()); };
  switch (static_cast<Errc>(error.code().value())) {
    case Errc::not_found:
      return answer(status::not_found);
    case Errc::already_exists:
      return answer(status::conflict);
    case Errc::length_exceeded:
      return answer(status::payload_too_large);
    case Errc::already_complete:
      return answer(status::forbidden);
    case Errc::expired:
      return answer(status::gone);
    case Errc::invalid_argument:
      return answer(status::bad_request);
    case Errc::lock_timeout:
      return answer(status::locked);
    case Errc::no_space:
    case Errc::quota_exceeded:
      return answer(status::insufficient_storage);
    case Errc::busy:
    case Errc::shutting_down:
      return answer(status::service_unavailable);
    case Errc::corrupt:
    case Errc::io_error:
      break;
  }
  return answer(status::internal_server_error);
}

Awaitable<Response> Service::answer(const action::Capabilities& /*wanted*/, Exchange /*exchange*/) {
  co_return tell_capabilities(options_.protocol);
}

Awaitable<Response> Service::answer(const action::Create& wanted, Exchange exchange) {
  const tidemark::SystemTime now = storage_.executor().environment().system_now();
  const UploadId id = make_id(wanted.concatenation.partial, now);
  Response response = make_response(status::created);
  response.set(field::location, options_.protocol.base_path + std::string(id.view()));
  if (!wanted.concatenation.parts.empty()) {
    co_await create_final(id, wanted, exchange.request);
    if (options_.expire_after) {
      const Upload upload = co_await find(id);
      add_expiry(response, upload);
    }
    co_return response;
  }
  std::optional<tidemark::SystemTime> expires_at;
  if (options_.expire_after) expires_at = now + *options_.expire_after;
  tidemark::Metadata metadata = wanted.metadata;
  co_await tidemark::async(
      storage_.create_upload(id, wanted.length, std::move(metadata), expires_at), k_await);
  bool completed = wanted.length == 0U;
  std::exception_ptr failure;
  if (wanted.has_bytes) {
    try {
      completed = co_await receive_first(id, wanted, exchange, response);
    } catch (const HttpError& error) {
      // Who has found it in the list, and taken it over, keeps it.
      if (error.status() == status::conflict) throw;
      failure = std::current_exception();
    } catch (...) {
      failure = std::current_exception();
    }
  }
  if (failure) {  // Its address is told to nobody.
    co_await tidemark::async(storage_.delete_upload(id), k_await);
    std::rethrow_exception(failure);
  }
  if (expires_at && !completed) {
    response.set("Upload-Expires",
                 format_http_date(std::chrono::floor<std::chrono::seconds>(*expires_at)));
  }
  co_return response;
}

Awaitable<void> Service::create_final(UploadId id, const action::Create& wanted,
                                      const RequestHeader& request) {
  for (const UploadId& part : wanted.concatenation.parts) {
    if (!is_partial(part)) {
      throw HttpError(status::bad_request, "a part of a final upload is not a partial upload");
    }
  }
  std::vector<UploadId> parts = wanted.concatenation.parts;
  const auto given = request["Upload-Metadata"];
  std::string metadata(given.data(), given.size());
  co_await tidemark::async(finals_.create(id, std::move(parts), std::move(metadata)), k_await);
}

Awaitable<Upload> Service::find_by(Task<std::optional<Upload>> look, UploadId id) {
  std::optional<Upload> upload = co_await tidemark::async(std::move(look), k_await);
  if (!upload) upload = co_await tidemark::async(finals_.find(id), k_await);
  if (!upload) throw HttpError(status::not_found, "there is no such upload");
  const tidemark::SystemTime now = storage_.executor().environment().system_now();
  if (!upload->completed && upload->expires_at && *upload->expires_at <= now) {
    throw HttpError(status::gone, "the upload has expired");
  }
  co_return *std::move(upload);
}

Awaitable<Upload> Service::find(UploadId id) {
  return find_by(storage_.get_upload(id), id);
}

Awaitable<Upload> Service::settle(UploadId id, std::optional<std::uint64_t> offset) {
  return find_by(settle_upload(storage_, id, offset), id);
}

Awaitable<bool> Service::receive(UploadId id, std::uint64_t offset,
                                 const std::optional<ExpectedDigest>& checksum,
                                 bool checksum_follows, Exchange exchange, Response& response) {
  std::optional<BodyDigest> digest;
  if (checksum) {
    digest.emplace(checksum->algorithm);
    digest->expect(*checksum);
  } else if (checksum_follows) {
    digest.emplace(std::nullopt);
  }
  const AppendResult result = co_await receive_upload(storage_, id, offset, exchange.client,
                                                      exchange.body, digest ? &*digest : nullptr);
  if (result.offset > offset) counters.bytes_received += result.offset - offset;
  check_result(result, exchange.body);
  response.set("Upload-Offset", std::to_string(result.offset));
  co_return result.completed;
}

Awaitable<bool> Service::receive_first(UploadId id, const action::Create& wanted, Exchange exchange,
                                       Response& response) {
  if (wanted.length != 0U) {
    co_return co_await receive(id, 0, wanted.checksum, wanted.checksum_follows, exchange, response);
  }
  co_await expect_no_bytes(exchange.body, wanted.checksum, wanted.checksum_follows,
                           "the upload has no bytes");
  response.set("Upload-Offset", "0");
  co_return true;
}

Awaitable<void> Service::tell_length(const action::Append& wanted) {
  const Upload upload = co_await settle(wanted.id, wanted.offset);
  if (!upload.parts.empty()) {
    throw HttpError(status::forbidden, "a final upload has the length of its parts");
  }
  if (upload.offset != wanted.offset) {
    throw HttpError(status::conflict,
                    "the upload stands at offset " + std::to_string(upload.offset));
  }
  if (!upload.length) {
    co_await tidemark::async(storage_.set_length(wanted.id, *wanted.length), k_await);
  } else if (upload.length != wanted.length) {
    throw HttpError(status::bad_request, "Upload-Length is not the one that was told before");
  }
}

Awaitable<Response> Service::answer(const action::Append& wanted, Exchange exchange) {
  Response response = make_response(status::no_content);
  if (wanted.length) co_await tell_length(wanted);
  bool refused = false;
  try {
    co_await receive(wanted.id, wanted.offset, wanted.checksum, wanted.checksum_follows, exchange,
                     response);
  } catch (const StorageError& error) {
    refused = error.code() == Errc::already_complete || error.code() == Errc::not_found;
    if (!refused) throw;
  }
  if (!refused && !options_.expire_after) co_return response;
  const Upload upload = co_await find(wanted.id);
  if (refused) {
    if (!upload.parts.empty()) {
      throw HttpError(status::forbidden, "a final upload takes no bytes");
    }
    if (upload.offset != wanted.offset) {
      throw HttpError(status::conflict, "the upload is complete");
    }
    // A client that did not hear the last answer asks once more.
    co_await expect_no_bytes(exchange.body, wanted.checksum, wanted.checksum_follows,
                             "the upload is complete");
    response.set("Upload-Offset", std::to_string(upload.offset));
  }
  add_expiry(response, upload);
  co_return response;
}

Awaitable<Response> Service::answer(const action::TellOffset& wanted, Exchange /*exchange*/) {
  const Upload upload = co_await settle(wanted.id);
  co_return tell_offset(upload, options_.protocol);
}

Awaitable<Response> Service::answer(const action::Terminate& wanted, Exchange /*exchange*/) {
  const bool was_unfinished = co_await tidemark::async(finals_.remove(wanted.id), k_await);
  if (!was_unfinished) co_await find(wanted.id);  // Else there is nothing to delete.
  co_await tidemark::async(storage_.delete_upload(wanted.id), k_await);
  co_return make_response(status::no_content);
}

Awaitable<Response> Service::answer(const action::ListUploads& wanted, Exchange /*exchange*/) {
  const tidemark::UploadPage page =
      co_await tidemark::async(storage_.list_uploads(wanted.after, wanted.limit), k_await);
  Response response = make_response(status::ok);
  response.set(field::content_type, "application/json");
  response.set(field::cache_control, "no-store");
  response.body() = format_listing(page.uploads, page.next);
  co_return response;
}

Awaitable<Response> Service::answer(const action::TellHealth& /*wanted*/, Exchange /*exchange*/) {
  // It answers only if the storage does.
  co_await tidemark::async(storage_.list_uploads({}, 1), k_await);
  Response response = make_response(status::ok);
  response.set(field::content_type, "text/plain; charset=utf-8");
  response.set(field::cache_control, "no-store");
  response.body() = "ok\n";
  co_return response;
}

Awaitable<Response> Service::answer(const action::TellMetrics& /*wanted*/, Exchange /*exchange*/) {
  Response response = make_response(status::ok);
  response.set(field::content_type, "text/plain; version=0.0.4");
  response.body() = format_metrics(counters, storage_.stats());
  co_return response;
}

Awaitable<Response> Service::answer(const action::GetPage& wanted, Exchange /*exchange*/) {
  const PageFile* const file = find_page_file(wanted.path);
  if (file == nullptr) throw HttpError(status::not_found, "there is no such page");
  Response response = make_response(status::ok);
  response.set(field::content_type, file->content_type);
  response.set(field::cache_control, "no-cache");
  response.set("Content-Security-Policy", "default-src 'self'; frame-ancestors 'none'");
  response.set("Referrer-Policy", "no-referrer");
  // The files know the uploads by the default path.
  std::string text = boost::algorithm::replace_all_copy(std::string(file->text), "/files/",
                                                        options_.protocol.base_path);
  response.body() = std::move(text);
  co_return response;
}

}  // namespace tus
