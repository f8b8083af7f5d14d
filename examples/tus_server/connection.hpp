#pragma once

#include <chrono>
#include <memory>
#include <utility>

#include "service.hpp"

namespace tus {

struct ConnectionLimits {
  std::chrono::seconds idle_timeout{60};  // Of a connection, and of a body that stalls.
  std::chrono::seconds header_timeout{10};
};

/// Counts a connection from the moment at which it is accepted.
class ConnectionSlot {
 public:
  explicit ConnectionSlot(Counters& counters) : counters_(&counters) {
    ++counters.connections_accepted;
    ++counters.connections_open;
  }
  ConnectionSlot(ConnectionSlot&& other) noexcept
      : counters_(std::exchange(other.counters_, nullptr)) {}
  ConnectionSlot& operator=(ConnectionSlot&&) = delete;
  ~ConnectionSlot() {
    if (counters_ != nullptr) --counters_->connections_open;
  }

 private:
  Counters* counters_;
};

/// One client: reads its requests one after another and writes the answers, until it leaves, breaks
/// a rule, or `leave` is called. For the thread of its io_context.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(ConnectionSlot slot, Socket socket, std::shared_ptr<Deadlines> deadlines,
             Service& service, const ConnectionLimits& limits)
      : slot_(std::move(slot)),
        client_(std::make_shared<ClientSocket>(std::move(socket), std::move(deadlines))),
        service_(service),
        limits_(limits) {}

  /// Keeps the connection alive.
  Awaitable<void> run();

  /// Ends it: at once between two requests, after the answer in one.
  void leave();
  /// A body that is still arriving is cut off; what arrived is committed.
  void leave_now();

 private:
  Awaitable<bool> read_header(RequestParser& parser);
  Awaitable<bool> answer_one(RequestParser& parser);
  Awaitable<bool> answer(const RequestHeader& request, RequestBody& body, bool keep_alive);
  Awaitable<bool> send(Response response, bool keep_alive, bool header_only);
  Awaitable<bool> send_content(const action::GetContent& wanted, const RequestHeader& request,
                               bool keep_alive);
  Awaitable<bool> send_bytes(tidemark::UploadReader& reader, ByteRange range);
  Awaitable<void> linger();
  void count(const RequestHeader& request, http::status status, Clock::time_point began);

  const ConnectionSlot slot_;
  const std::shared_ptr<ClientSocket> client_;
  Service& service_;
  const ConnectionLimits& limits_;
  bool in_request_ = false;
  bool leaving_ = false;
};

}  // namespace tus
