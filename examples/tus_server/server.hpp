#pragma once

#include <cstddef>
#include <list>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "connection.hpp"

namespace tus {

struct ServerOptions {
  std::string host = "127.0.0.1";
  std::uint16_t port = 8080;  // 0: any that is free.
  unsigned threads = 1;
  std::size_t max_connections = 4096;
  ConnectionLimits limits = {};
};

/// Accepts connections, each of which stays with one thread. Made, run and destroyed by one thread;
/// the service outlives it.
class Server {
 public:
  /// Listens. Throws std::runtime_error, which names the address.
  Server(Service& service, ServerOptions options);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  std::uint16_t port() const { return port_; }

  /// Serves until SIGTERM or SIGINT; then lets requests end, and cuts off what takes too long. From
  /// the signal on the process has 4.8 s: SIGALRM ends it then.
  void run();

 private:
  struct Front;
  struct Worker;

  void listen();
  Awaitable<void> accept();
  void refuse(Socket socket);
  void serve(Worker& worker, Socket socket);
  Awaitable<void> leave();
  void for_each_connection(void (Connection::*call)());

  Service& service_;
  const ServerOptions options_;
  const std::unique_ptr<Front> front_;  // Accepts, and hears signals.
  std::vector<std::unique_ptr<Worker>> workers_;
  std::uint16_t port_ = 0;
  std::size_t turn_ = 0;
};

}  // namespace tus
