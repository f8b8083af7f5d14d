#include "connection.hpp"

#include <optional>
#include <stdexcept>

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/write.hpp>
#include <boost/system/system_error.hpp>

namespace examples {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using boost::system::error_code;
using boost::system::system_error;
using namespace std::chrono_literals;

constexpr std::chrono::seconds k_connect_limit = 10s;  // For each address of the server.
constexpr std::chrono::seconds k_stall_limit = 30s;    // While no byte can be sent.
// Servers close what is idle for longer (5 s is a usual time), and then a request is lost.
constexpr std::chrono::seconds k_idle_limit = 3s;
constexpr std::uint32_t k_max_answer_header_bytes = std::uint32_t{60} << 10;
constexpr std::size_t k_max_answer_bytes = std::size_t{1} << 20;

}  // namespace

Request make_request(http::verb method, const Url& url) {
  const std::string_view target = url.encoded_target();
  Request request(method, {target.data(), target.size()}, 11);
  const std::string_view host = url.encoded_host_and_port();
  request.set(http::field::host, {host.data(), host.size()});
  request.set(http::field::user_agent, "tus_upload");
  request.set("Tus-Resumable", "1.0.0");
  return request;
}

asio::awaitable<Response> Connection::send(const Request& request,
                                           std::chrono::seconds answer_limit) {
  if (std::chrono::steady_clock::now() - used_at_ > k_idle_limit) stream_.reset();
  const bool is_new = !stream_;
  if (is_new) co_await connect();
  error_code unsent;
  try {
    co_await write(request);
  } catch (const system_error& error) {
    unsent = error.code();
  }
  // Also when the server closed in the middle of the request: it may have said why.
  std::optional<http::response_parser<http::string_body>> parser;
  error_code lost;
  stream_->expires_after(answer_limit);
  do {
    parser.emplace();
    parser->skip(request.method() == http::verb::head);
    parser->header_limit(k_max_answer_header_bytes);
    parser->body_limit(k_max_answer_bytes);
    co_await http::async_read(*stream_, received_, *parser,
                              asio::redirect_error(asio::use_awaitable, lost));
  } while (!lost && parser->get().result_int() < 200);  // What comes before the answer.
  used_at_ = std::chrono::steady_clock::now();
  if (unsent || lost || !parser->keep_alive()) stream_.reset();
  // On one that has served already it is bytes that nobody asked for, and another may help.
  if (is_new && lost == http::error::bad_version) {
    throw std::runtime_error(host_ + ':' + port_ + ": not an HTTP server");
  }
  if (lost) throw system_error(unsent ? unsent : lost);
  co_return parser->release();
}

asio::awaitable<void> Connection::connect() {
  const asio::any_io_executor executor = co_await asio::this_coro::executor;
  asio::ip::tcp::resolver resolver(executor);
  const auto addresses = co_await resolver.async_resolve(host_, port_, asio::use_awaitable);
  error_code error = asio::error::host_not_found;
  for (const auto& address : addresses) {
    boost::beast::tcp_stream stream(executor);
    stream.expires_after(k_connect_limit);
    co_await stream.async_connect(address.endpoint(),
                                  asio::redirect_error(asio::use_awaitable, error));
    if (error) continue;
    stream.socket().set_option(asio::ip::tcp::no_delay(true));
    received_.clear();
    stream_.emplace(std::move(stream));
    co_return;
  }
  throw system_error(error);
}

asio::awaitable<void> Connection::write(const Request& request) {
  http::request_serializer<Request::body_type> serializer(request);
  while (!serializer.is_done()) {
    stream_->expires_after(k_stall_limit);  // For each step: a slow line is no error.
    co_await http::async_write_some(*stream_, serializer, asio::use_awaitable);
  }
}

}  // namespace examples
