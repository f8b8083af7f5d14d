#pragma once

// One connection to a tus server, for a client that may vanish at any moment.

#include <cstdint>
#include <optional>
#include <sha256.hpp>
#include <span>
#include <string>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core/flat_buffer.hpp>

#include "load.hpp"

namespace tidemark::bench {

struct Answer {
  unsigned status = 0;
  std::optional<std::uint64_t> offset;  ///< Upload-Offset.
  std::string location;
};

/// Connects by itself when there is something to send. Its operations throw
/// boost::system::system_error when the connection breaks. One operation at a time.
class Channel {
 public:
  Channel(boost::asio::any_io_executor executor, const TusUrl& url);

  /// Sends the head of a request, which it ends with Host and an empty line, and as much of the
  /// body as the caller likes.
  boost::asio::awaitable<void> send(std::string head, std::span<const char> body = {});

  /// Reads an answer; `bodiless` for that of a HEAD. Its body goes into `digest` or is dropped.
  boost::asio::awaitable<Answer> receive(bool bodiless = false, examples::Sha256* digest = nullptr);

  bool is_open() const { return socket_.is_open(); }

  /// Breaks the connection, as a network does: what was not read on the other side may be lost.
  void reset();

 private:
  boost::asio::ip::tcp::socket socket_;
  const TusUrl* url_;
  boost::beast::flat_buffer received_;
};

}  // namespace tidemark::bench
