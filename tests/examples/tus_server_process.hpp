#pragma once

#include <array>
#include <chrono>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <string_view>
#include <unistd.h>
#include <utility>
#include <vector>

#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>

#include "../temporary_folder.hpp"
#include "example_program.hpp"

namespace tidemark::test {

namespace http = boost::beast::http;
using tcp = boost::asio::ip::tcp;
using HttpResponse = http::response<http::string_body>;

/// The tus server on a free port. Its data is in `folder`/data.
class TusServer {
 public:
  explicit TusServer(const std::filesystem::path& folder, std::vector<std::string> options = {},
                     unsigned short port = 0)
      : TusServer(folder, "tus_server", arguments(std::move(options), port)) {}
  /// One that `program` runs, with what is put before the server's own command.
  static TusServer under(const std::filesystem::path& folder, const char* program,
                         std::vector<std::string> before) {
    before.push_back((std::filesystem::path(TIDEMARK_EXAMPLES_DIR) / "tus_server").string());
    for (std::string& each : arguments({}, 0)) before.push_back(std::move(each));
    return TusServer(folder, program, std::move(before));
  }

  unsigned short port() const { return port_; }
  ExampleProgram& program() { return program_; }
  pid_t pid() const { return program_.pid(); }

 private:
  TusServer(const std::filesystem::path& folder, const char* program,
            std::vector<std::string> arguments)
      : program_(folder, program, std::move(arguments)) {
    constexpr std::string_view k_before = "listening on http://127.0.0.1:";
    std::string output;
    while ((output = contents(folder / "output.txt")).find('\n') == output.npos) {
      if (program_.has_ended()) throw std::runtime_error("the server ended");
      ::usleep(1000);  // Another process' output is an event that cannot be waited for.
    }
    if (!output.starts_with(k_before)) throw std::runtime_error("not a first line: " + output);
    port_ = static_cast<unsigned short>(std::stoul(output.substr(k_before.size())));
  }

  static std::vector<std::string> arguments(std::vector<std::string> options, unsigned short port) {
    options.insert(options.begin(), {"--listen", "127.0.0.1:" + std::to_string(port), "--data",
                                     "data", "--threads", "2"});
    return options;
  }

  ExampleProgram program_;
  unsigned short port_ = 0;
};

/// One connection to it, whose user spells every byte that is sent.
class HttpConnection {
 public:
  explicit HttpConnection(const TusServer& server) : socket_(context_) {
    socket_.connect({boost::asio::ip::address_v4::loopback(), server.port()});
  }

  void send(std::string_view bytes) {
    boost::asio::write(socket_, boost::asio::buffer(bytes.data(), bytes.size()));
  }

  /// The next answer; `to_head` has no body.
  HttpResponse receive(bool to_head = false) {
    http::response_parser<http::string_body> parser;
    parser.skip(to_head);
    parser.body_limit(boost::none);
    http::read(socket_, received_, parser);
    return parser.release();
  }

  /// A request whose body has its length told.
  HttpResponse ask(std::string_view method, std::string_view target,
                   const std::vector<std::pair<std::string_view, std::string>>& fields,
                   std::string_view body = {}) {
    std::string text = std::string(method) + ' ' + std::string(target) + " HTTP/1.1\r\nHost: x\r\n";
    for (const auto& [name, value] : fields) text += std::string(name) + ": " + value + "\r\n";
    text += "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n";
    send(text += body);
    return receive(method == "HEAD");
  }

  /// Whether the server has ended the connection; reads what still comes.
  bool has_ended() {
    boost::system::error_code error;
    std::array<char, 4096> bytes{};
    while (!error) socket_.read_some(boost::asio::buffer(bytes), error);
    return error == boost::asio::error::eof || error == boost::asio::error::connection_reset;
  }

  tcp::socket& socket() { return socket_; }

 private:
  boost::asio::io_context context_;
  tcp::socket socket_;
  boost::beast::flat_buffer received_;
};

}  // namespace tidemark::test
