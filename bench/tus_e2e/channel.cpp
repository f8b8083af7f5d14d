#include "channel.hpp"

#include <array>
#include <charconv>
#include <utility>

#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/http.hpp>

namespace tidemark::bench {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;

std::optional<std::uint64_t> number(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

}  // namespace

Channel::Channel(asio::any_io_executor executor, const TusUrl& url)
    : socket_(std::move(executor)), url_(&url) {}

asio::awaitable<void> Channel::send(std::string head, std::span<const char> body) {
  if (!socket_.is_open()) {
    received_.clear();
    co_await socket_.async_connect(url_->endpoint, asio::use_awaitable);
    socket_.set_option(asio::ip::tcp::no_delay(true));
    socket_.set_option(asio::socket_base::linger(true, 0));
  }
  head += "\r\nHost: " + url_->host + "\r\n\r\n";
  const std::array<asio::const_buffer, 2> parts{asio::buffer(head),
                                                asio::buffer(body.data(), body.size())};
  co_await asio::async_write(socket_, parts, asio::use_awaitable);
}

asio::awaitable<Answer> Channel::receive(bool bodiless, examples::Sha256* digest) {
  http::response_parser<http::buffer_body> parser;
  parser.body_limit(boost::none);
  parser.skip(bodiless);
  co_await http::async_read_header(socket_, received_, parser, asio::use_awaitable);
  std::array<char, 16 * 1024> piece;
  while (!parser.is_done()) {
    parser.get().body().data = piece.data();
    parser.get().body().size = piece.size();
    boost::system::error_code error;
    co_await http::async_read(socket_, received_, parser,
                              asio::redirect_error(asio::use_awaitable, error));
    if (error && error != http::error::need_buffer) throw boost::system::system_error(error);
    const std::size_t bytes = piece.size() - parser.get().body().size;
    if (digest != nullptr) digest->update(std::as_bytes(std::span(piece).first(bytes)));
  }
  Answer answer;
  answer.status = parser.get().result_int();
  answer.offset = number(parser.get()["Upload-Offset"]);
  answer.location = path_of(parser.get()[http::field::location]);
  if (!parser.get().keep_alive()) reset();
  co_return answer;
}

void Channel::reset() {
  boost::system::error_code ignored;
  socket_.close(ignored);
}

}  // namespace tidemark::bench
