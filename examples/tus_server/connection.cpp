#include "connection.hpp"

#include <algorithm>
#include <array>
#include <exception>
#include <iterator>
#include <netinet/tcp.h>
#include <string>
#include <utility>

#include <boost/algorithm/string/predicate.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/write.hpp>

#include <tidemark/engine/asio.hpp>

#include "log.hpp"

namespace tus {
namespace {

using http::field;
using http::status;
using tidemark::Buffer;
using tidemark::SQLiteStorage;
using tidemark::Task;
using tidemark::Upload;
using tidemark::UploadReader;

// Room for Upload-Concat with as many parts as it may have, each a whole URL of 100 bytes.
constexpr std::size_t k_max_header_bytes = 64 << 10;
// Each takes memory of its own, many times its length where that is short.
constexpr std::ptrdiff_t k_max_fields = 100;
constexpr std::size_t k_content_piece_bytes = std::size_t{256} << 10;
// Of a content, in the kernel: a client that reads half of it has shown that it goes on.
constexpr int k_max_unsent_bytes = 256 << 10;

using UnsentBytes = asio::detail::socket_option::integer<IPPROTO_TCP, TCP_NOTSENT_LOWAT>;

/// An answer to what is no HTTP request.
HttpError to_refusal(const boost::system::error_code& error) {
  if (error == http::error::header_limit || error == http::error::buffer_overflow) {
    return {status::request_header_fields_too_large, "the header is too long"};
  }
  return {status::bad_request, "not an HTTP request: " + error.message()};
}

/// A proxy before this server may take another coding for the end of the body than this server.
void check_coding(const RequestHeader& request) {
  const auto [first, last] = request.equal_range(field::transfer_encoding);
  for (auto each = first; each != last; ++each) {
    if (boost::iequals(each->value(), "chunked")) continue;
    throw HttpError(status::not_implemented, "a Transfer-Encoding other than chunked");
  }
}

/// What comes next of an upload's content. One visit to the storage's thread.
Task<Buffer> read_piece(SQLiteStorage& storage, UploadReader& reader, std::uint64_t offset,
                        std::size_t bytes) {
  Buffer piece = co_await storage.buffers().acquire(bytes);
  piece.resize(bytes);
  const std::size_t size = co_await reader.read_at(offset, piece.bytes());
  piece.resize(size);
  co_return piece;
}

/// The beginning of `text` as a log takes it, which is UTF-8.
std::string for_log(std::string text, std::size_t most) {
  text.resize(std::min(text.size(), most));
  const auto is_strange = [](char c) { return static_cast<unsigned char>(c) >= 0x80; };
  std::replace_if(text.begin(), text.end(), is_strange, '?');
  return text;
}

bool has_body(const Response& response) {
  return response.result() != status::no_content && response.result() != status::not_modified;
}

/// What went wrong, as an answer. In a function of its own, because a coroutine cannot await where
/// it handles an exception.
HttpError current_error() {
  try {
    throw;
  } catch (const HttpError& error) {
    return error;
  } catch (const tidemark::StorageError& error) {
    HttpError answer = to_http_error(error);
    if (answer.status() == status::internal_server_error) log("error", {{"what", error.what()}});
    return answer;
  } catch (const std::exception& error) {
    log("error", {{"what", error.what()}});
    return {status::internal_server_error, "the server failed"};
  }
}

}  // namespace

void Connection::leave() {
  leaving_ = true;
  if (!in_request_) client_->interrupt();
}

void Connection::leave_now() {
  leaving_ = true;
  client_->interrupt();
}

Awaitable<void> Connection::run() {
  const auto self = shared_from_this();
  boost::system::error_code ignored;
  client_->socket.set_option(asio::ip::tcp::no_delay(true), ignored);
  client_->socket.set_option(UnsentBytes(k_max_unsent_bytes), ignored);
  client_->socket.non_blocking(true, ignored);
  for (bool goes_on = true; goes_on && !leaving_;) {
    client_->begin_request();
    RequestParser parser;
    parser.header_limit(k_max_header_bytes);
    parser.body_limit(boost::none);
#if BOOST_VERSION >= 109000           // Before, each trailer that Trailer announces was merged.
    parser.merge_all_trailers(true);  // Upload-Checksum.
#endif
    goes_on = co_await read_header(parser);
    if (!goes_on) break;
    in_request_ = true;
    goes_on = co_await answer_one(parser);
    in_request_ = false;
  }
}

Awaitable<bool> Connection::read_header(RequestParser& parser) {
  boost::system::error_code error;
  if (!client_->has_arrived()) {  // Until then, no memory is held for a request.
    client_->received.shrink_to_fit();
    client_->set_time_limit(limits_.idle_timeout);
    co_await client_->socket.async_wait(Socket::wait_read, asio::redirect_error(k_await, error));
    if (error || leaving_) co_return false;
  }
  client_->set_time_limit(limits_.header_timeout);
  auto& received = client_->received;
  received.reserve(ClientSocket::k_read_ahead_bytes);
  // Counted here, because Beast bounds only what it has not parsed yet.
  for (std::size_t parsed = 0; !error && !parser.is_header_done();) {
    const std::size_t before = received.size();
    const bool needs_more = !parse(parser, received, error);
    parsed += before - received.size();
    if (error) break;
    const std::size_t bytes = parser.is_header_done() ? parsed : parsed + received.size();
    const RequestHeader& header = parser.get();
    if (bytes > k_max_header_bytes || std::distance(header.begin(), header.end()) > k_max_fields) {
      error = http::error::header_limit;
    } else if (needs_more) {
      co_await client_->receive_more(error);
    }
  }
  if (!error) co_return true;
  if (error.category() == http::make_error_code(http::error::bad_method).category()) {
    const HttpError refusal = to_refusal(error);
    ++service_.counters.answers[4];
    log("refused", {{"status", static_cast<int>(refusal.status())}, {"what", refusal.what()}});
    Response response = make_error(refusal, service_.protocol());
    co_await send(std::move(response), false, false);
    co_await linger();
  }
  co_return false;
}

Awaitable<bool> Connection::answer_one(RequestParser& parser) {
  const RequestHeader& request = parser.get();
  RequestBody body(*client_, parser, limits_.idle_timeout);
  // The answers are of HTTP/1.1, and would have to tell an older client that it may stay.
  const bool wants_to_stay = request.version() >= 11 && parser.get().keep_alive();
  const bool sent = co_await answer(request, body, wants_to_stay);
  if (!sent) co_return false;
  if (body.state() == RequestBody::State::complete) co_return wants_to_stay && !leaving_;
  co_await linger();
  co_return false;
}

Awaitable<bool> Connection::answer(const RequestHeader& request, RequestBody& body,
                                   bool keep_alive) {
  const Clock::time_point began = Clock::now();
  client_->set_no_time_limit();
  std::optional<Response> response;
  std::optional<HttpError> refusal;
  bool header_only = request.method() == http::verb::head;
  try {
    check_coding(request);
    const Action action = interpret(request, service_.protocol());
    if (const auto* content = std::get_if<action::GetContent>(&action)) {
      keep_alive = keep_alive && body.state() == RequestBody::State::complete;
      co_return co_await send_content(*content, request, keep_alive);
    }
    const Exchange exchange{request, *client_, body};
    Awaitable<Response> answering = std::visit(
        [&](const auto& wanted) -> Awaitable<Response> {
          if constexpr (std::is_same_v<decltype(wanted), const action::GetContent&>) {
            std::terminate();  // Sent above.
          } else {
            return service_.answer(wanted, exchange);
          }
        },
        action);
    response = co_await std::move(answering);
  } catch (...) {
    refusal = current_error();
  }
  if (refusal) response = make_error(*refusal, service_.protocol());
  count(request, response->result(), began);
  keep_alive = keep_alive && body.state() == RequestBody::State::complete;
  co_return co_await send(*std::move(response), keep_alive, header_only);
}

Awaitable<bool> Connection::send(Response response, bool keep_alive, bool header_only) {
  response.keep_alive(keep_alive && !leaving_);
  const auto now = std::chrono::system_clock::now();
  response.set(field::date, format_http_date(std::chrono::floor<std::chrono::seconds>(now)));
  if (has_body(response) && !response.has_content_length()) {
    response.content_length(response.body().size());
  }
  if (header_only) response.body().clear();
  client_->set_time_limit(limits_.idle_timeout);
  boost::system::error_code error;
  co_await http::async_write(client_->socket, response, asio::redirect_error(k_await, error));
  co_return !error;
}

Awaitable<bool> Connection::send_content(const action::GetContent& wanted,
                                         const RequestHeader& request, bool keep_alive) {
  const Clock::time_point began = Clock::now();
  const Upload upload = co_await service_.find(wanted.id);
  Content content = describe_content(request, wanted, upload);
  const bool is_head = request.method() == http::verb::head;
  const bool has_bytes = content.range && !is_head && !wanted.header_only;
  std::unique_ptr<UploadReader> reader;
  if (has_bytes) {
    reader = co_await tidemark::async(service_.storage().open_reader(wanted.id), k_await);
  }
  count(request, content.header.result(), began);
  if (content.range && (is_head || has_bytes)) {
    content.header.content_length(content.range->last + 1 - content.range->first);
  }
  const bool sent = co_await send(std::move(content.header), keep_alive, true);
  if (!sent || !has_bytes) co_return sent;
  try {
    co_return co_await send_bytes(*reader, *content.range);
  } catch (const std::exception& error) {  // Only a connection that ends too early says so now.
    log("content broke off", {{"what", error.what()}});
  }
  co_return false;
}

/// While the client is waited for, it holds no memory of the storage.
Awaitable<bool> Connection::send_bytes(UploadReader& reader, ByteRange range) {
  const std::uint64_t end = range.last + 1;
  std::uint64_t offset = range.first;
  while (offset < end && !client_->interrupted) {
    boost::system::error_code error;
    client_->set_time_limit(limits_.idle_timeout);
    co_await client_->socket.async_wait(Socket::wait_write, asio::redirect_error(k_await, error));
    if (error) co_return false;
    const std::size_t bytes = std::min<std::uint64_t>(k_content_piece_bytes, end - offset);
    Buffer piece =
        co_await tidemark::async(read_piece(service_.storage(), reader, offset, bytes), k_await);
    if (piece.size() == 0) co_return false;
    const std::size_t size =
        client_->socket.write_some(asio::buffer(piece.data(), piece.size()), error);
    if (error && error != asio::error::would_block) co_return false;
    offset += size;
    service_.counters.bytes_sent += size;
  }
  co_return offset == end;
}

/// Reads on for a moment, since a socket that is closed with unread bytes takes the answer back,
/// and many clients write all of a request before they read.
Awaitable<void> Connection::linger() {
  constexpr std::size_t k_most_bytes = std::size_t{32} << 20;
  boost::system::error_code error;
  client_->socket.shutdown(Socket::shutdown_send, error);
  client_->set_time_limit(std::chrono::milliseconds(leaving_ ? 200 : 2000));
  std::array<char, 4096> unwanted{};
  for (std::size_t size = 0; !error && size < k_most_bytes;) {
    size += co_await client_->socket.async_read_some(asio::buffer(unwanted),
                                                     asio::redirect_error(k_await, error));
  }
}

void Connection::count(const RequestHeader& request, http::status status, Clock::time_point began) {
  const auto code = static_cast<unsigned>(status);
  ++service_.counters.answers[code / 100];
  // Each piece of each upload, and each look of a page at the list, would drown the rest.
  const http::verb method = request.method();
  if (code < 300 && (method == http::verb::patch || method == http::verb::get)) return;
  const auto took = std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - began);
  log("request", {{"method", for_log(request.method_string(), 20)},
                  {"target", for_log(request.target(), 200)},
                  {"status", code},
                  {"us", took.count()}});
}

}  // namespace tus
