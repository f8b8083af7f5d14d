#include "server.hpp"

#include <csignal>
#include <stdexcept>
#include <string_view>
#include <sys/time.h>
#include <utility>

#include <boost/asio/bind_executor.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/signal_set.hpp>

#include "log.hpp"

namespace tus {
namespace {

using namespace std::chrono_literals;
using Timer = asio::basic_waitable_timer<Clock, asio::wait_traits<Clock>, IoExecutor>;

// Of the 5 s in which the server leaves: what ends by itself, then what was cut off.
constexpr Clock::duration k_patience = 2s;
// Then SIGALRM ends the process: the storage keeps its promises wherever it is killed.
constexpr itimerval k_last_moment{{}, {4, 800'000}};

}  // namespace

/// A thread and the connections that stay with it.
struct Server::Worker {
  asio::io_context context{1};
  asio::executor_work_guard<IoExecutor> work{context.get_executor()};
  std::shared_ptr<Deadlines> deadlines = std::make_shared<Deadlines>(context);
  std::list<Connection*> connections;
  std::thread thread;
};

struct Server::Front {
  asio::io_context context{1};
  asio::basic_socket_acceptor<asio::ip::tcp, IoExecutor> acceptor{context.get_executor()};
  asio::basic_signal_set<IoExecutor> signals{context.get_executor(), SIGTERM, SIGINT};
};

Server::Server(Service& service, ServerOptions options)
    : service_(service), options_(std::move(options)), front_(std::make_unique<Front>()) {
  try {
    listen();
  } catch (const boost::system::system_error& error) {
    throw std::runtime_error("listen on " + options_.host + ':' + std::to_string(options_.port) +
                             ": " + error.code().message());
  }
  for (unsigned i = 0; i < options_.threads; ++i) {
    workers_.push_back(std::make_unique<Worker>());
  }
}

void Server::listen() {
  asio::ip::tcp::resolver resolver(front_->context);
  const asio::ip::tcp::endpoint endpoint =
      *resolver.resolve(options_.host, std::to_string(options_.port)).begin();
  auto& acceptor = front_->acceptor;
  acceptor.open(endpoint.protocol());
  acceptor.set_option(asio::socket_base::reuse_address(true));
  acceptor.bind(endpoint);
  acceptor.listen();
  port_ = acceptor.local_endpoint().port();
}

Server::~Server() {
  for (const auto& worker : workers_) {
    worker->context.stop();
    if (worker->thread.joinable()) worker->thread.join();
  }
}

void Server::run() {
  for (const auto& worker : workers_) {
    worker->thread = std::thread([&context = worker->context] { context.run(); });
  }
  front_->signals.async_wait([this](const boost::system::error_code& error, int signal) {
    if (error) return;
    ::setitimer(ITIMER_REAL, &k_last_moment, nullptr);
    log("leaving", {{"signal", signal}});
    asio::co_spawn(front_->context, leave(), asio::detached);
  });
  asio::co_spawn(front_->context, accept(), asio::detached);
  front_->context.run();
}

Awaitable<void> Server::accept() {
  Timer pause(front_->context);
  for (;;) {
    Worker& worker = *workers_[turn_++ % workers_.size()];
    boost::system::error_code error;
    Socket socket = co_await front_->acceptor.async_accept(worker.context.get_executor(),
                                                           asio::redirect_error(k_await, error));
    if (!front_->acceptor.is_open()) co_return;
    if (error) {  // No descriptor is left, most likely: others will end.
      log("accept failed", {{"what", error.message()}});
      pause.expires_after(100ms);
      co_await pause.async_wait(asio::redirect_error(k_await, error));
      continue;
    }
    if (service_.counters.connections_open >= options_.max_connections) {
      refuse(std::move(socket));
    } else {
      serve(worker, std::move(socket));
    }
  }
}

void Server::refuse(Socket socket) {
  static constexpr std::string_view k_answer =
      "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n"
      "Tus-Resumable: 1.0.0\r\nAccess-Control-Allow-Origin: *\r\n\r\n";
  boost::system::error_code ignored;
  socket.non_blocking(true, ignored);
  socket.send(asio::buffer(k_answer), 0, ignored);
}

void Server::serve(Worker& worker, Socket socket) {
  asio::post(worker.context, [this, &worker, slot = ConnectionSlot(service_.counters),
                              socket = std::move(socket)]() mutable {
    const auto connection = std::make_shared<Connection>(
        std::move(slot), std::move(socket), worker.deadlines, service_, options_.limits);
    const auto place = worker.connections.insert(worker.connections.end(), connection.get());
    asio::co_spawn(worker.context, connection->run(),
                   [&worker, place](const std::exception_ptr& error) {
                     worker.connections.erase(place);
                     if (error) log("connection failed");
                   });
  });
}

void Server::for_each_connection(void (Connection::*call)()) {
  for (const auto& worker : workers_) {
    asio::post(worker->context, [&worker = *worker, call] {
      for (Connection* const each : worker.connections) (each->*call)();
    });
  }
}

Awaitable<void> Server::leave() {
  front_->acceptor.close();
  Timer pause(front_->context);
  for (const auto step : {&Connection::leave, &Connection::leave_now}) {
    for_each_connection(step);
    const Clock::time_point end = Clock::now() + k_patience;
    while (service_.counters.connections_open > 0 && Clock::now() < end) {
      pause.expires_after(10ms);
      co_await pause.async_wait(k_await);
    }
  }
}

}  // namespace tus
