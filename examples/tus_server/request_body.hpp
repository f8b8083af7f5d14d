#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include <boost/beast/http/buffer_body.hpp>
#include <boost/beast/http/parser.hpp>

#include "client_socket.hpp"
#include "protocol.hpp"

namespace tus {

using RequestParser = http::request_parser<http::buffer_body>;

/// Lets `parser` take what it can of `received`. False when it needs more.
///
/// Beast's own operations that read call the parser from a completion handler, where what it throws
/// ends the process, and do not return before a header is complete, however much of it there is.
bool parse(RequestParser& parser, boost::beast::flat_buffer& received,
           boost::system::error_code& error);

/// The body of one request, received piece by piece into memory of the caller's. With a
/// Content-Length the bytes go from the socket straight there; Beast takes chunks apart, which
/// costs one copy.
///
/// A client that sends slowly is given little memory, and none while nothing arrives: many of them
/// must not use up the buffers of the others.
class RequestBody {
 public:
  enum class State : std::uint8_t {
    open,
    complete,     // All of it was received.
    broken_off,   // The client went away in the middle.
    timed_out,    // Nothing came for too long, or too little.
    interrupted,  // By ClientSocket::interrupt.
    malformed,    // Its chunks are not as HTTP says.
  };

  RequestBody(ClientSocket& client, RequestParser& parser, Clock::duration idle_timeout);

  State state() const { return state_; }
  bool is_open() const { return state_ == State::open; }
  /// Whether it has no bytes, as far as it takes to know that.
  Awaitable<bool> is_empty();

  /// Whether `receive` would find something at once.
  bool has_arrived() { return readable_ || (client_.has_arrived() && !starved_); }
  /// Returns when it would, at the end, or after `limit`.
  Awaitable<void> wait(Clock::duration limit);
  /// How much memory the next `receive` is worth.
  std::size_t piece_bytes();
  /// Receives into `piece` until it is full, the body ends, or the rest is slow to come; gives how
  /// many bytes.
  Awaitable<std::size_t> receive(std::span<std::byte> piece);

  /// What the trailer said; empty when it said nothing. For a body that is complete.
  std::string_view trailer(std::string_view name) const;

 private:
  Awaitable<void> ask_to_continue();
  Awaitable<std::size_t> receive_known(std::span<std::byte> piece);
  Awaitable<std::size_t> receive_chunks(std::span<std::byte> piece);
  void end(const boost::system::error_code& error);

  ClientSocket& client_;
  RequestParser& parser_;
  const Clock::duration idle_timeout_;
  const std::optional<std::uint64_t> announced_;
  std::uint64_t left_ = 0;  // Of the announced.
  State state_ = State::open;
  bool client_waits_;      // For "100 Continue".
  bool starved_ = false;   // What was received is too little to go on with.
  bool readable_ = false;  // The socket is, if only to say that the client has gone.
  // For the client, less what its bytes are worth; what the server itself needs is not counted.
  Clock::duration waited_{};
};

}  // namespace tus
