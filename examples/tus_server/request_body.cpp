#include "request_body.hpp"

#include <algorithm>
#include <string_view>

#include <boost/algorithm/string/predicate.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/http/error.hpp>

namespace tus {
namespace {

constexpr std::size_t k_slow_piece_bytes = std::size_t{4} << 10;
constexpr std::size_t k_max_piece_bytes = std::size_t{512} << 10;
// For how long a piece is held that is not full.
constexpr std::chrono::milliseconds k_hold{50};
// A client that sends fewer bytes than these a second runs out of its time, if slowly.
constexpr Clock::duration k_time_for_a_byte = Clock::duration(std::chrono::seconds(1)) / 256;

/// A completion condition of Asio: its own ones read no more than 64 KiB in a call.
std::size_t all_at_once(const boost::system::error_code& error, std::size_t /*read*/) {
  return error ? 0 : k_max_piece_bytes;
}

/// As Content-Length says it; none: as many as come.
std::optional<std::uint64_t> announced(const RequestParser& parser) {
  if (parser.get().count(http::field::transfer_encoding) > 0) return std::nullopt;
  const auto length = parser.content_length();
  return length ? *length : 0;
}

}  // namespace

bool parse(RequestParser& parser, boost::beast::flat_buffer& received,
           boost::system::error_code& error) {
  if (received.size() == 0) return false;
  received.consume(parser.put(received.cdata(), error));
  if (error != http::error::need_more) return true;
  error = {};
  return false;
}

RequestBody::RequestBody(ClientSocket& client, RequestParser& parser, Clock::duration idle_timeout)
    : client_(client),
      parser_(parser),
      idle_timeout_(idle_timeout),
      announced_(announced(parser)),
      left_(announced_.value_or(0)),
      client_waits_(parser.get().version() >= 11 &&
                    boost::iequals(parser.get()[http::field::expect], "100-continue")) {
  if (announced_ == 0U) state_ = State::complete;
}

Awaitable<void> RequestBody::wait(Clock::duration limit) {
  if (client_waits_) co_await ask_to_continue();
  if (client_.interrupted) state_ = State::interrupted;
  if (has_arrived() || !is_open()) co_return;
  client_.received.shrink_to_fit();
  const Clock::time_point began = Clock::now();
  client_.deadline = began + std::min(limit, idle_timeout_ - waited_);
  boost::system::error_code error;
  co_await client_.socket.async_wait(Socket::wait_read, asio::redirect_error(k_await, error));
  readable_ = !error;
  waited_ += Clock::now() - began;
  const bool timed_out = error == asio::error::operation_aborted && waited_ >= idle_timeout_;
  if (client_.interrupted) {
    state_ = State::interrupted;
  } else if (timed_out) {
    state_ = State::timed_out;
  } else if (error && error != asio::error::operation_aborted) {
    end(error);
  }
}

std::size_t RequestBody::piece_bytes() {
  boost::system::error_code error;
  const std::size_t arrived = client_.received.size() + client_.socket.available(error);
  const std::uint64_t wanted = announced_ ? std::min<std::uint64_t>(left_, client_.fast_piece_bytes)
                                          : client_.fast_piece_bytes;
  if (arrived < std::min<std::uint64_t>(wanted, k_slow_piece_bytes)) return k_slow_piece_bytes;
  return wanted;
}

Awaitable<std::size_t> RequestBody::receive(std::span<std::byte> piece) {
  if (client_.interrupted) state_ = State::interrupted;
  if (!is_open()) co_return 0;
  readable_ = false;
  const Clock::time_point began = Clock::now();
  client_.set_time_limit(k_hold);
  const std::size_t size =
      announced_ ? co_await receive_known(piece) : co_await receive_chunks(piece);
  waited_ += Clock::now() - began;
  waited_ -= std::min<Clock::duration>(waited_, k_time_for_a_byte * size);
  if (client_.interrupted && is_open()) state_ = State::interrupted;
  const bool fast = size == piece.size();
  starved_ = is_open() && !fast;
  if (!fast) {
    client_.fast_piece_bytes = ClientSocket::k_first_piece_bytes;
  } else if (size == client_.fast_piece_bytes) {
    client_.fast_piece_bytes = std::min(2 * size, k_max_piece_bytes);
  }
  co_return size;
}

Awaitable<bool> RequestBody::is_empty() {
  if (announced_) co_return announced_ == 0U;
  std::byte first{};
  std::size_t size = 0;
  while (is_open() && size == 0) {
    co_await wait(idle_timeout_);
    if (has_arrived()) size = co_await receive({&first, 1});
  }
  co_return state_ == State::complete&& size == 0;
}

std::string_view RequestBody::trailer(std::string_view name) const {
  // Beast adds the trailer's fields to the header's.
  const auto value = parser_.get()[{name.data(), name.size()}];
  return {value.data(), value.size()};
}

Awaitable<void> RequestBody::ask_to_continue() {
  client_waits_ = false;
  client_.set_time_limit(idle_timeout_);
  static constexpr std::string_view k_continue = "HTTP/1.1 100 Continue\r\n\r\n";
  boost::system::error_code error;
  co_await asio::async_write(client_.socket, asio::buffer(k_continue),
                             asio::redirect_error(k_await, error));
  if (error) end(error);
}

Awaitable<std::size_t> RequestBody::receive_known(std::span<std::byte> piece) {
  piece = piece.first(std::min<std::uint64_t>(piece.size(), left_));
  std::size_t size =
      asio::buffer_copy(asio::buffer(piece.data(), piece.size()), client_.received.data());
  client_.received.consume(size);
  if (size < piece.size()) {
    boost::system::error_code error;
    size += co_await asio::async_read(client_.socket,
                                      asio::buffer(piece.data() + size, piece.size() - size),
                                      all_at_once, asio::redirect_error(k_await, error));
    if (error && error != asio::error::operation_aborted) end(error);
  }
  left_ -= size;
  if (left_ == 0) state_ = State::complete;
  co_return size;
}

Awaitable<std::size_t> RequestBody::receive_chunks(std::span<std::byte> piece) {
  http::buffer_body::value_type& body = parser_.get().body();
  body.data = piece.data();
  body.size = piece.size();
  // What there is room for is received at once.
  const bool keeps_up = client_.fast_piece_bytes > ClientSocket::k_first_piece_bytes;
  client_.received.reserve(keeps_up ? ClientSocket::k_max_received_bytes
                                    : ClientSocket::k_read_ahead_bytes);
  boost::system::error_code error;
  while (!error && !parser_.is_done()) {
    if (parse(parser_, client_.received, error)) continue;
    if (body.size == 0) break;
    co_await client_.receive_more(error);
  }
  const bool goes_on = error == http::error::need_buffer || error == asio::error::operation_aborted;
  if (error && !goes_on) {
    end(error);
  } else if (parser_.is_done()) {
    state_ = State::complete;
  }
  co_return piece.size() - body.size;
}

void RequestBody::end(const boost::system::error_code& error) {
  // What is not of the connection is of the chunks.
  const bool left = error.category() != http::make_error_code(http::error::bad_chunk).category();
  state_ = left ? State::broken_off : State::malformed;
}

}  // namespace tus
