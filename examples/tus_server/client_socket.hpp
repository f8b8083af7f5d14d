#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

#include <boost/asio/redirect_error.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/read_size.hpp>
#include <boost/beast/http/error.hpp>

#include "asio_types.hpp"
#include "deadlines.hpp"

namespace tus {

/// A connected client: its socket, what was received and not yet used, and until when the operation
/// that runs may take. For the thread of its io_context, but `weak_from_this`.
class ClientSocket final : public Deadlines::Watched,
                           public std::enable_shared_from_this<ClientSocket> {
 public:
  ClientSocket(Socket connected, std::shared_ptr<Deadlines> deadlines)
      : socket(std::move(connected)),
        deadlines_(std::move(deadlines)),
        place_(deadlines_->add(*this)) {}
  ~ClientSocket() { deadlines_->remove(place_); }
  ClientSocket(const ClientSocket&) = delete;
  ClientSocket& operator=(const ClientSocket&) = delete;

  /// What is awaited of the socket from now on ends with operation_aborted after `time`.
  void set_time_limit(Clock::duration time) { deadline = Clock::now() + time; }
  void set_no_time_limit() { deadline = Clock::time_point::max(); }

  /// Ends the operation that runs, and all reads of this request's body that would follow.
  void interrupt() {
    interrupted = true;
    expire();
  }
  /// Called between two requests.
  void begin_request() {
    ++request;
    interrupted = false;
  }

  /// Bytes can be read without waiting; the end of the stream is none.
  bool has_arrived() {
    boost::system::error_code error;
    return received.size() > 0 || socket.available(error) > 0;
  }

  /// Receives what comes next behind what `received` has: at least a byte, or there is an error;
  /// http::error::buffer_overflow says that it is full.
  Awaitable<void> receive_more(boost::system::error_code& error) {
    const std::size_t room = boost::beast::read_size(received, k_max_received_bytes);
    if (room == 0) {
      error = boost::beast::http::error::buffer_overflow;
      co_return;
    }
    const std::size_t size = co_await socket.async_read_some(received.prepare(room),
                                                             asio::redirect_error(k_await, error));
    received.commit(size);
  }

  static constexpr std::size_t k_first_piece_bytes = 64 << 10;
  /// Room in `received` for what comes with a header, or in chunks from a slow client.
  static constexpr std::size_t k_read_ahead_bytes = 1024;
  /// Less than the 65,533 bytes of a field above which Beast's parser throws.
  static constexpr std::size_t k_max_received_bytes = (64 << 10) - 16;

  Socket socket;
  boost::beast::flat_buffer received{k_max_received_bytes};
  bool interrupted = false;
  /// How much of a body is received at once, while the client keeps up: grows with each such piece.
  std::size_t fast_piece_bytes = k_first_piece_bytes;
  std::uint64_t request = 0;  // Counted, so that what is meant for one does not reach the next.

 private:
  void expire() override {
    boost::system::error_code ignored;
    socket.cancel(ignored);
  }

  // Shared: what its context still holds when it goes away outlives the thread's own objects.
  const std::shared_ptr<Deadlines> deadlines_;
  const Deadlines::Place place_;
};

}  // namespace tus
