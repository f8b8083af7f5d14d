#pragma once

#include <chrono>
#include <cstddef>
#include <optional>

#include <boost/asio/awaitable.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http/message.hpp>
#include <boost/beast/http/span_body.hpp>
#include <boost/beast/http/string_body.hpp>

#include "protocol.hpp"

namespace examples {

using Request = boost::beast::http::request<boost::beast::http::span_body<const std::byte>>;
using Response = boost::beast::http::response<boost::beast::http::string_body>;

/// A request that names its target, the host and the version of the protocol.
Request make_request(boost::beast::http::verb method, const Url& url);

/// A connection to one server: opened when a request needs it, and used for as many as the server
/// permits, while they follow each other soon.
///
/// Errors: boost::system::system_error when it was lost or a time limit has passed. The next
/// request then opens another; whether the server has seen this one is unknown. std::runtime_error
/// when the server speaks no HTTP.
/// Thread safety: none; one request at a time.
class Connection {
 public:
  explicit Connection(const Url& server) : host_(server.host_address()), port_(port_of(server)) {}

  /// Sends the request, its body from where it lies, and gives the answer, whatever its status.
  /// The answer must arrive within `answer_limit` after that.
  boost::asio::awaitable<Response> send(const Request& request, std::chrono::seconds answer_limit);

 private:
  boost::asio::awaitable<void> connect();
  boost::asio::awaitable<void> write(const Request& request);

  const std::string host_;
  const std::string port_;
  std::optional<boost::beast::tcp_stream> stream_;
  std::chrono::steady_clock::time_point used_at_;
  // Of a header or a trailer: Beast throws where one field is longer than 65,533 bytes.
  boost::beast::flat_buffer received_{std::size_t{60} << 10};
};

}  // namespace examples
