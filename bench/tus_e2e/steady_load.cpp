#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <memory>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <optional>
#include <stdexcept>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <system_error>
#include <unistd.h>

#include <boost/asio/buffer.hpp>
#include <boost/beast/http.hpp>

#include "load.hpp"

namespace tidemark::bench {
namespace {

namespace http = boost::beast::http;
using Clock = std::chrono::steady_clock;

// An upload takes as many whole PATCHes as fit, at least one; then it is deleted and begun again.
constexpr std::size_t k_upload_bytes = 64 << 20;
// Bodies are this block over and over, so that it stays in the processor's cache.
constexpr std::size_t k_block_bytes = 1 << 20;

[[noreturn]] void fail(const char* call) {
  throw std::system_error(errno, std::generic_category(), call);
}

enum class Step { create, append, remove };

/// One connection, the upload that it is at, and the request that it waits for.
struct Connection {
  Connection() = default;
  ~Connection() { ::close(socket); }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  int socket = -1;
  std::string target;
  std::size_t offset = 0;

  Step step = Step::create;
  Clock::time_point started;
  std::string head;
  std::size_t body_bytes = 0;
  std::size_t sent = 0;  ///< Of head and body together.
  bool polled_for_output = false;
  std::string received;  ///< What the parser could not take yet.
  std::optional<http::response_parser<http::string_body>> answer;
};

/// One thread and one epoll, because the server needs the processors more.
class Load {
 public:
  explicit Load(const SteadyLoad& load)
      : load_(load),
        upload_bytes_(std::max<std::size_t>(1, k_upload_bytes / load.chunk_bytes) *
                      load.chunk_bytes),
        block_(random_bytes(std::min(load.chunk_bytes, k_block_bytes), 1)),
        epoll_(::epoll_create1(EPOLL_CLOEXEC)) {
    if (epoll_ < 0) fail("epoll_create1");
  }
  ~Load() { ::close(epoll_); }
  Load(const Load&) = delete;
  Load& operator=(const Load&) = delete;

  SteadyResult run() {
    for (unsigned count = 0; count < load_.connections; ++count) connect();
    for (const auto& connection : connections_) begin(*connection, Step::create);
    while (waiting_ > 0) turn();
    started_ = last_answer_ = Clock::now();
    end_ = started_ + std::chrono::duration_cast<Clock::duration>(
                          std::chrono::duration<double>(load_.seconds));
    for (const auto& connection : connections_) begin(*connection, Step::append);
    while (waiting_ > 0) turn();
    return result();
  }

 private:
  void connect() {
    connections_.push_back(std::make_unique<Connection>());
    Connection& connection = *connections_.back();
    const int family = load_.url.endpoint.protocol().family();
    connection.socket = ::socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connection.socket < 0) fail("socket");
    const auto length = static_cast<socklen_t>(load_.url.endpoint.size());
    if (::connect(connection.socket, load_.url.endpoint.data(), length) != 0) fail("connect");
    const int on = 1;
    ::setsockopt(connection.socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    poll(connection, EPOLL_CTL_ADD, EPOLLIN);
  }

  void poll(Connection& connection, int operation, std::uint32_t events) {
    epoll_event event{.events = events, .data = {.ptr = &connection}};
    if (::epoll_ctl(epoll_, operation, connection.socket, &event) != 0) fail("epoll_ctl");
  }

  void turn() {
    std::array<epoll_event, 256> events;
    const int count = ::epoll_wait(epoll_, events.data(), static_cast<int>(events.size()), -1);
    if (count < 0 && errno != EINTR) fail("epoll_wait");
    for (int index = 0; index < count; ++index) {
      const epoll_event& event = events[static_cast<std::size_t>(index)];
      Connection& connection = *static_cast<Connection*>(event.data.ptr);
      if ((event.events & ~std::uint32_t{EPOLLOUT}) != 0) {
        receive(connection);
      } else {
        send(connection);
      }
    }
  }

  void begin(Connection& connection, Step step) {
    connection.step = step;
    connection.body_bytes = step == Step::append ? load_.chunk_bytes : 0;
    connection.head = head(connection);
    connection.sent = 0;
    connection.answer.emplace();
    connection.answer->eager(true);
    connection.started = Clock::now();
    ++waiting_;
    send(connection);
  }

  std::string head(const Connection& connection) const {
    const std::string common =
        " HTTP/1.1\r\nHost: " + load_.url.host + "\r\nTus-Resumable: 1.0.0\r\n";
    switch (connection.step) {
      case Step::create:
        return "POST " + load_.url.path + common +
               "Content-Length: 0\r\nUpload-Length: " + std::to_string(upload_bytes_) + "\r\n\r\n";
      case Step::append:
        return "PATCH " + connection.target + common +
               "Content-Type: application/offset+octet-stream\r\nContent-Length: " +
               std::to_string(load_.chunk_bytes) +
               "\r\nUpload-Offset: " + std::to_string(connection.offset) + "\r\n\r\n";
      case Step::remove:
        return "DELETE " + connection.target + common + "\r\n";
    }
    __builtin_unreachable();
  }

  /// One call of the system, so that no connection holds up the others.
  void send(Connection& connection) {
    const std::size_t head_bytes = connection.head.size();
    const std::size_t head_sent = std::min(connection.sent, head_bytes);
    const std::size_t body_sent = connection.sent - head_sent;
    const std::size_t at = body_sent % block_.size();
    const std::size_t piece = std::min(block_.size() - at, connection.body_bytes - body_sent);
    std::array<iovec, 2> parts{{{connection.head.data() + head_sent, head_bytes - head_sent},
                                {block_.data() + at, piece}}};
    msghdr message{};
    message.msg_iov = parts.data();
    message.msg_iovlen = parts.size();
    const ssize_t sent = ::sendmsg(connection.socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && errno != EAGAIN) fail("sendmsg");
    if (sent > 0) connection.sent += static_cast<std::size_t>(sent);

    const bool more = connection.sent < head_bytes + connection.body_bytes;
    if (more == connection.polled_for_output) return;
    connection.polled_for_output = more;
    poll(connection, EPOLL_CTL_MOD, more ? EPOLLIN | EPOLLOUT : EPOLLIN);
  }

  void receive(Connection& connection) {
    std::array<char, 4096> bytes;
    const ssize_t count = ::recv(connection.socket, bytes.data(), bytes.size(), MSG_DONTWAIT);
    if (count < 0 && errno == EAGAIN) return;
    if (count < 0) fail("recv");
    if (count == 0) throw std::runtime_error("the server closed a connection");
    connection.received.append(bytes.data(), static_cast<std::size_t>(count));
    boost::system::error_code error;
    const std::size_t taken =
        connection.answer->put(boost::asio::buffer(connection.received), error);
    if (error && error != http::error::need_more) throw boost::system::system_error(error);
    connection.received.erase(0, taken);
    if (connection.answer->is_done()) answered(connection);
  }

  void answered(Connection& connection) {
    --waiting_;
    const Clock::time_point now = Clock::now();
    const http::response<http::string_body>& answer = connection.answer->get();
    const http::status expected =
        connection.step == Step::create ? http::status::created : http::status::no_content;
    if (answer.result() != expected) {
      throw std::runtime_error(connection.head.substr(0, connection.head.find('\r')) + ": " +
                               std::to_string(answer.result_int()) + ' ' + answer.body());
    }
    if (connection.step == Step::create) {
      connection.target = path_of(answer[http::field::location]);
      connection.offset = 0;
    } else if (connection.step == Step::append) {
      connection.offset += load_.chunk_bytes;
      latencies_.push_back(now - connection.started);
      last_answer_ = now;
    }
    if (now < end_) begin(connection, next_step(connection));
  }

  Step next_step(const Connection& connection) const {
    if (connection.step == Step::remove) return Step::create;
    return connection.offset < upload_bytes_ ? Step::append : Step::remove;
  }

  SteadyResult result() {
    rusage usage{};
    ::getrusage(RUSAGE_SELF, &usage);
    const auto seconds = [](const timeval& time) {
      return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
    };
    std::sort(latencies_.begin(), latencies_.end());
    const auto percentile_ms = [this](std::size_t percent) {
      return std::chrono::duration<double, std::milli>(
                 latencies_[(latencies_.size() - 1) * percent / 100])
          .count();
    };
    return {.patches = latencies_.size(),
            .seconds = std::chrono::duration<double>(last_answer_ - started_).count(),
            .p50_ms = percentile_ms(50),
            .p99_ms = percentile_ms(99),
            .cpu_seconds = seconds(usage.ru_utime) + seconds(usage.ru_stime)};
  }

  const SteadyLoad load_;
  const std::size_t upload_bytes_;
  std::vector<char> block_;
  const int epoll_;
  std::vector<std::unique_ptr<Connection>> connections_;
  unsigned waiting_ = 0;  // Requests that are not answered.
  Clock::time_point started_;
  Clock::time_point end_ = Clock::time_point::min();  // Nothing is begun after an answer from here.
  Clock::time_point last_answer_;
  std::vector<Clock::duration> latencies_;
};

}  // namespace

SteadyResult run_steady_load(const SteadyLoad& load) {
  return Load(load).run();
}

}  // namespace tidemark::bench
