// Operations of Boost.Asio that are begun or end while their context shuts down.

#include <chrono>
#include <exception>
#include <functional>
#include <latch>
#include <memory>
#include <stop_token>
#include <system_error>
#include <utility>

#include <boost/asio/bind_executor.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/strand.hpp>

#include <tidemark/engine/asio.hpp>
#include <tidemark/engine/sleep_for.hpp>
#include <tidemark/engine/stop.hpp>
#include <tidemark/engine/sync_wait.hpp>

#include "../catch.hpp"
#include "../driver_fixture.hpp"

using namespace std::chrono_literals;

namespace tidemark::test {
namespace {

namespace asio = boost::asio;

Task<void> sleep_long(Executor&) {
  co_await sleep_for(1h);
}

/// Starts another operation on its context when it is destroyed uncalled.
struct Restarts {
  Executor& executor;
  asio::io_context& io;
  std::shared_ptr<int> kept;

  Restarts(Executor& where, asio::io_context& context, std::shared_ptr<int> keep)
      : executor(where), io(context), kept(std::move(keep)) {}
  Restarts(Restarts&& other) noexcept
      : executor(other.executor), io(other.io), kept(std::move(other.kept)) {}
  ~Restarts() {
    if (!kept) return;
    async(sleep_long(executor),
          asio::bind_executor(io, [k = std::move(kept)](const std::exception_ptr&) { ++*k; }));
  }
  void operator()(const std::exception_ptr&) { ++*kept; }
};

/// Runs something in the middle of the shutdown of a context.
struct AtShutdown : asio::execution_context::service {
  using key_type = AtShutdown;
  static inline asio::execution_context::id id;

  explicit AtShutdown(asio::execution_context& context) : service(context) {}
  void shutdown() override { run(); }

  std::function<void()> run;
};

Task<void> sleep_until(Executor& executor, std::stop_token stop, std::latch& ended) {
  try {
    co_await with_stop(sleep_long(executor), stop);
  } catch (const std::system_error&) {
  }
  ended.count_down();
}

TEST_CASE("a context that is going away takes no new operation", "[asio]") {
  EngineFixture fixture;
  const auto kept = std::make_shared<int>(0);
  SECTION("that was used") {
    asio::io_context io;
    async(sleep_long(fixture.executor),
          asio::bind_executor(io.get_executor(), Restarts(fixture.executor, io, kept)));
  }
  SECTION("that was not used before") {
    asio::io_context io;
    asio::post(io, [restarts = Restarts(fixture.executor, io, kept)] {});
  }
  SECTION("and whose strands have ended before") {
    std::stop_source stop;
    std::latch ended(1);
    asio::io_context io;
    asio::use_service<detail::AsioService>(io);
    asio::use_service<AtShutdown>(io).run = [&] {
      stop.request_stop();
      ended.wait();
      sync_wait(fixture.executor, [](Executor&) -> Task<void> { co_return; }(fixture.executor));
    };
    // Services shut down in the opposite order: the strands', what runs above, ours.
    async(sleep_until(fixture.executor, stop.get_token(), ended),
          asio::bind_executor(asio::make_strand(io), Restarts(fixture.executor, io, kept)));
  }
  CHECK(kept.use_count() == 1);
  CHECK(*kept == 0);
}

}  // namespace
}  // namespace tidemark::test
