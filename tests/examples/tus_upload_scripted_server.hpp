#pragma once

#include <functional>
#include <optional>
#include <string>
#include <sys/socket.h>
#include <thread>
#include <utility>
#include <vector>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>

namespace tidemark::test {

/// A server that answers as a test wants it to: one connection after the other, in a thread of its
/// own.
class ScriptedServer {
 public:
  using Request = boost::beast::http::request<boost::beast::http::string_body>;
  using Response = boost::beast::http::response<boost::beast::http::string_body>;
  /// Gives nothing to hang up instead of an answer. Called in the server's thread.
  using Script = std::function<std::optional<Response>(const Request&)>;

  /// Each connection begins with `greeting`.
  explicit ScriptedServer(Script script, std::string greeting = {})
      : acceptor_(io_, {boost::asio::ip::make_address("127.0.0.1"), 0}),
        url_("http://127.0.0.1:" + std::to_string(acceptor_.local_endpoint().port())),
        script_(std::move(script)),
        greeting_(std::move(greeting)),
        thread_([this] { accept(); }) {}
  ~ScriptedServer() { stop(); }
  ScriptedServer(const ScriptedServer&) = delete;
  ScriptedServer& operator=(const ScriptedServer&) = delete;

  /// The URL of `target`, which begins with a slash.
  std::string url(const std::string& target = "/files/") const { return url_ + target; }

  /// Ends it, after its clients have ended. Gives all that it was asked.
  const std::vector<Request>& stop() {
    if (thread_.joinable()) {
      ::shutdown(acceptor_.native_handle(), SHUT_RDWR);
      thread_.join();
    }
    return requests_;
  }
  /// How many connections there were, once it has ended.
  std::size_t connections() const { return connections_; }

 private:
  void accept() {
    for (;;) {
      boost::system::error_code ended;
      boost::asio::ip::tcp::socket socket = acceptor_.accept(ended);
      if (ended) return;
      ++connections_;
      boost::system::error_code lost;
      boost::asio::write(socket, boost::asio::buffer(greeting_), lost);
      serve(socket, lost);
    }
  }

  void serve(boost::asio::ip::tcp::socket& socket, boost::system::error_code& lost) {
    namespace http = boost::beast::http;
    boost::beast::flat_buffer received;
    while (!lost) {
      http::request_parser<http::string_body> parser;
      parser.body_limit(std::uint64_t{64} << 20);
      http::read(socket, received, parser, lost);
      if (lost) return;
      requests_.push_back(parser.release());
      std::optional<Response> response = script_(requests_.back());
      if (!response) return;
      if (requests_.back().method() != http::verb::head) response->prepare_payload();
      http::write(socket, *response, lost);
      if (!response->keep_alive()) return;
    }
  }

  boost::asio::io_context io_;
  boost::asio::ip::tcp::acceptor acceptor_;
  const std::string url_;
  const Script script_;
  const std::string greeting_;
  std::vector<Request> requests_;
  std::size_t connections_ = 0;
  std::thread thread_;  // Last: it uses the members above.
};

/// One upload as a tus server has it, for scripts that mostly do what is right.
struct ScriptedUpload {
  using Request = ScriptedServer::Request;
  using Response = ScriptedServer::Response;

  std::string location = "/files/one";
  std::string length;
  std::string bytes;

  static Response answer(unsigned status) {
    Response response;
    response.result(status);
    response.set("Tus-Resumable", "1.0.0");
    return response;
  }

  Response operator()(const Request& request) {
    namespace http = boost::beast::http;
    if (request.method() == http::verb::post) {
      length = std::string(request["Upload-Length"]);
      bytes.clear();
      Response response = answer(201);
      response.set(http::field::location, location);
      return response;
    }
    const bool is_patch = request.method() == http::verb::patch;
    if (is_patch && request["Upload-Offset"] != std::to_string(bytes.size())) return answer(409);
    if (is_patch) bytes += request.body();
    Response response = answer(is_patch ? 204 : 200);
    response.set("Upload-Offset", std::to_string(bytes.size()));
    if (!is_patch) response.set("Upload-Length", length);
    return response;
  }
};

}  // namespace tidemark::test
