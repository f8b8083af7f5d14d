// Tasks as operations of Boost.Asio, which is slow to compile: in this file alone, nearly.

#include <array>
#include <atomic>
#include <chrono>
#include <functional>
#include <latch>
#include <limits>
#include <memory>
#include <optional>
#include <random>
#include <stdexcept>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/bind_executor.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/deferred.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/system_executor.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/use_future.hpp>

#include <tidemark/engine/asio.hpp>
#include <tidemark/engine/async_mutex.hpp>
#include <tidemark/engine/perform.hpp>
#include <tidemark/engine/sleep_for.hpp>
#include <tidemark/engine/sync_wait.hpp>
#include <tidemark/engine/when_all.hpp>

#include "../catch.hpp"
#include "../driver_fixture.hpp"
#include "../fault_driver.hpp"

using namespace std::chrono_literals;

namespace tidemark::test {
namespace {

namespace asio = boost::asio;

Task<std::unique_ptr<int>> give(Executor&, int value) {
  co_await schedule();
  co_return std::make_unique<int>(value);
}

Task<int> give_unbound(int value) {
  co_await schedule();
  co_return value;
}

Task<void> fail(Executor&) {
  co_await schedule();
  throw std::runtime_error("lost");
}

Task<void> sleep_long(Executor&) {
  co_await sleep_for(1h);
}

bool is_cancellation(const std::exception_ptr& error) {
  if (!error) return false;
  try {
    std::rethrow_exception(error);
  } catch (const std::system_error& thrown) {
    return is_canceled(thrown);
  } catch (...) {
    return false;
  }
}

/// Runs `body` on `io` and gives its result or throws its error.
template <class T>
T run(asio::io_context& io, asio::awaitable<T> body) {
  auto result = asio::co_spawn(io, std::move(body), asio::use_future);
  io.restart();
  io.run();
  return result.get();
}

asio::awaitable<int> await_all_kinds(Executor& executor) {
  const std::unique_ptr<int> first = co_await async(give(executor, 1), asio::use_awaitable);
  auto operation = async(give(executor, 10), asio::deferred);
  const std::unique_ptr<int> second = co_await std::move(operation)(asio::use_awaitable);
  const int third = co_await async(executor, give_unbound(100), asio::use_awaitable);
  bool failed = false;
  try {
    co_await async(fail(executor), asio::use_awaitable);
  } catch (const std::runtime_error&) {
    failed = true;
  }
  co_return failed ? *first + *second + third : -1;
}

TEST_CASE("an asio::awaitable awaits a task", "[asio]") {
  EngineFixture fixture;
  asio::io_context io;
  CHECK(run(io, await_all_kinds(fixture.executor)) == 111);
}

TEST_CASE("a future and a callback get the result or the error", "[asio]") {
  EngineFixture fixture;
  CHECK(*async(give(fixture.executor, 3), asio::use_future).get() == 3);
  CHECK_THROWS_WITH(async(fail(fixture.executor), asio::use_future).get(), "lost");
  { const auto never_started = async(sleep_long(fixture.executor), asio::deferred); }

  asio::io_context io;
  int got = 0;
  bool failed = false;
  async(give(fixture.executor, 4),
        asio::bind_executor(io, [&](const std::exception_ptr& error, std::unique_ptr<int> value) {
          if (!error) got = *value;
        }));
  async(fail(fixture.executor), asio::bind_executor(io, [&](const std::exception_ptr& error) {
          failed = error != nullptr;
        }));
  io.run();  // Work is outstanding until both have completed.
  CHECK(got == 4);
  CHECK(failed);
}

TEST_CASE("an operation completes on its handler's executor, never in the engine", "[asio]") {
  EngineFixture fixture;
  asio::io_context io;
  auto work = asio::make_work_guard(io);
  std::jthread runner([&] { io.run(); });
  const auto strand = asio::make_strand(io);
  for (int i = 0; i < 500; ++i) {
    std::thread::id ran_on;
    bool in_strand = false;
    std::latch done(1);
    async(give(fixture.executor, 1),
          asio::bind_executor(strand, [&](const std::exception_ptr&, const std::unique_ptr<int>&) {
            ran_on = std::this_thread::get_id();
            in_strand = strand.running_in_this_thread();
            done.count_down();
          }));
    done.wait();
    REQUIRE(ran_on == runner.get_id());
    REQUIRE(in_strand);
  }
  // The system executor may run a function in the calling thread: here that would be the engine's.
  Executor* inside = &fixture.executor;
  std::latch done(1);
  async(give(fixture.executor, 1), [&](const std::exception_ptr&, const std::unique_ptr<int>&) {
    inside = Executor::current();
    done.count_down();
  });
  done.wait();
  CHECK(inside == nullptr);
  work.reset();
}

/// A way with a suspension point of each kind. At the one that is the target it says so and stays.
struct Way {
  Executor& other;
  int target = 0;
  std::function<void()> reached;
  AsyncMutex mutex;
  WaitList list;
  int passed = 0;

  bool at(int point) const {
    if (point == target) reached();
    return point == target;
  }
};

Task<void> walk_operation() {
  Operation operation;
  operation.kind = Operation::Kind::sync;
  const std::int64_t result = co_await detail::perform(operation);
  if (result == -ECANCELED) throw operation_canceled();
}

Task<void> walk_mutex(Way& way, bool stay) {
  AsyncMutex::Guard held;
  if (stay) held = way.mutex.try_lock();
  const AsyncMutex::Guard guard = co_await way.mutex.lock();
}

Task<void> walk_list(Way& way) {
  const bool woken = co_await way.list.wait();
  if (!woken) throw operation_canceled();
}

constexpr int k_points = 6;

Task<int> walk(Executor& executor, Way& way) {
  if (way.at(0)) co_await sleep_for(1h);
  ++way.passed;
  way.at(1);
  co_await walk_operation();
  ++way.passed;
  const bool stay = way.at(2);
  co_await walk_mutex(way, stay);
  ++way.passed;
  if (way.at(3)) co_await walk_list(way);
  ++way.passed;
  if (way.at(4)) co_await sleep_long(way.other);
  ++way.passed;
  if (way.at(5)) co_await when_all(sleep_long(executor), sleep_long(way.other));
  ++way.passed;
  co_return way.passed;
}

struct TwoExecutors {
  static EngineOptions options(Environment& environment) {
    EngineOptions options = engine_options();
    options.executors = 2;
    options.environment = &environment;
    return options;
  }
  FaultEnvironment environment;
  Engine engine{options(environment)};
  Executor& executor = engine.executor();
  Executor& other = engine.executor();
};

TEST_CASE("cancellation ends a task at whichever point it is suspended", "[asio]") {
  TwoExecutors fixture;
  for (int target = 0; target <= k_points; ++target) {
    for (const auto type : {asio::cancellation_type::terminal, asio::cancellation_type::partial}) {
      CAPTURE(target);
      fixture.environment.on_submit([target](const Operation&, std::uint64_t) {
        return target == 1 ? Fault::hold() : Fault::answer(0);
      });
      asio::io_context io;
      asio::cancellation_signal signal;
      Way way{fixture.other, target, [&] { asio::post(io, [&] { signal.emit(type); }); }, {}, {}};
      std::exception_ptr error;
      int value = -1;
      async(walk(fixture.executor, way),
            asio::bind_cancellation_slot(
                signal.slot(), asio::bind_executor(io, [&](std::exception_ptr thrown, int given) {
                  error = std::move(thrown);
                  value = given;
                })));
      io.run();
      CHECK(way.passed == target);
      CHECK(is_cancellation(error) == (target < k_points));
      CHECK(value == (target < k_points ? 0 : k_points));
      CHECK_FALSE(signal.slot().has_handler());
      signal.emit(type);  // Long after the end.
    }
  }
}

TEST_CASE("cancellation before the start, after the end, and of another kind", "[asio]") {
  EngineFixture fixture;
  asio::io_context io;
  asio::cancellation_signal signal;
  std::exception_ptr error;
  std::unique_ptr<int> value;
  const auto token = [&](auto handler) {
    return asio::bind_cancellation_slot(signal.slot(), asio::bind_executor(io, std::move(handler)));
  };
  const auto keep_error = [&](std::exception_ptr thrown) { error = std::move(thrown); };

  async(sleep_long(fixture.executor), token(keep_error));
  signal.emit(asio::cancellation_type::total);  // Would promise that nothing was done: ignored.
  io.poll();
  CHECK_FALSE(error);
  signal.emit(asio::cancellation_type::all);  // Perhaps before the engine has begun.
  io.run();
  CHECK(is_cancellation(error));

  error = nullptr;
  async(give(fixture.executor, 5), token([&](std::exception_ptr thrown, std::unique_ptr<int> got) {
          error = std::move(thrown);
          value = std::move(got);
        }));
  fixture.engine.close(1h);  // The task has ended, its handler was not called yet.
  signal.emit(asio::cancellation_type::all);
  io.restart();
  io.run();
  CHECK_FALSE(error);
  CHECK(*value == 5);
}

asio::awaitable<int> limit(Executor& executor, std::chrono::milliseconds duration) {
  using namespace asio::experimental::awaitable_operators;
  asio::steady_timer timer(co_await asio::this_coro::executor, duration);
  const auto first = co_await (async(sleep_long(executor), asio::use_awaitable) ||
                               timer.async_wait(asio::use_awaitable));
  co_return static_cast<int>(first.index());
}

asio::awaitable<int> gather(Executor& executor) {
  using namespace asio::experimental::awaitable_operators;
  auto both = co_await (async(give(executor, 20), asio::use_awaitable) &&
                        async(give(executor, 22), asio::use_awaitable));
  asio::steady_timer timer(co_await asio::this_coro::executor, 1h);
  auto first = co_await (async(give(executor, 100), asio::use_awaitable) ||
                         timer.async_wait(asio::use_awaitable));
  co_return *std::get<0>(both) + *std::get<1>(both) + *std::get<0>(first);
}

TEST_CASE("timeouts and groups of Asio work on tasks", "[asio]") {
  EngineFixture fixture;
  asio::io_context io;
  CHECK(run(io, limit(fixture.executor, 2ms)) == 1);
  CHECK(run(io, gather(fixture.executor)) == 142);
}

/// Asked to stop, it still writes to `bytes` for a while, as an operation in the kernel would.
Task<void> fill(Executor&, std::array<std::byte, 64>& bytes, std::latch& started,
                std::atomic<int>& ended) {
  started.count_down();
  try {
    co_await sleep_for(1h);
  } catch (const std::system_error&) {
  }
  for (std::byte& byte : bytes) {
    byte = std::byte{7};
    co_await without_stop(walk_operation());
  }
  ++ended;
}

asio::awaitable<void> lend(Executor& executor, std::latch& started, std::atomic<int>& ended,
                           std::shared_ptr<int> kept) {
  std::array<std::byte, 64> bytes{};
  co_await async(fill(executor, bytes, started, ended), asio::use_awaitable);
  ++*kept;  // Not reached.
}

TEST_CASE("an io_context that ends drains its tasks and calls no handler", "[asio]") {
  EngineFixture fixture;
  const auto kept = std::make_shared<int>(0);
  std::atomic<int> ended{0};
  {
    std::latch started(20);
    asio::io_context io;
    asio::thread_pool pool(1);
    const auto strand = asio::make_strand(io);
    for (int i = 0; i < 10; ++i) {
      asio::co_spawn(io, lend(fixture.executor, started, ended, kept), asio::detached);
      asio::co_spawn(strand, lend(fixture.executor, started, ended, kept), asio::detached);
    }
    io.poll();
    // Finished when the context ends, but its handler was not called.
    async(give(fixture.executor, 1),
          asio::bind_executor(
              io, [kept](const std::exception_ptr&, const std::unique_ptr<int>&) { ++*kept; }));
    async(sleep_long(fixture.executor),
          asio::bind_executor(pool, [kept](const std::exception_ptr&) { ++*kept; }));
    started.wait();
    pool.stop();
  }
  CHECK(ended == 20);
  CHECK(kept.use_count() == 1);
  CHECK(*kept == 0);
  CHECK(*async(give(fixture.executor, 3), asio::use_future).get() == 3);
}

Task<int> give_at_once(Executor&, int value) {
  co_return value;
}

TEST_CASE("an engine that ends first completes its operations", "[asio]") {
  asio::io_context io;
  int canceled = 0;
  int given = 0;
  {
    EngineFixture fixture;
    for (int i = 0; i < 50; ++i) {
      async(sleep_long(fixture.executor),
            asio::bind_executor(io, [&](const std::exception_ptr& error) {
              canceled += is_cancellation(error) ? 1 : 0;
            }));
      async(give_at_once(fixture.executor, 1),
            asio::bind_executor(io, [&](const std::exception_ptr&, int value) { given += value; }));
    }
    CHECK(canceled + given == 0);
  }
  io.run();
  CHECK(canceled == 50);
  CHECK(given == 50);
}

Task<int> work_shortly(Executor&, int turns) {
  for (int i = 0; i < turns; ++i) co_await schedule();
  co_return turns;
}

TEST_CASE("cancellation races with completion", "[asio][race]") {
  constexpr int k_never = std::numeric_limits<int>::max();
  EngineFixture fixture;
  std::mt19937 random(12);
  for (int round = 0; round < 3000; ++round) {
    // Luck decides who wins a race, so in some rounds one side does not take part.
    const bool cancel = round % 16 != 0;
    const int turns = round % 16 == 8 ? k_never : static_cast<int>(random() % 100);
    asio::io_context io(1);
    asio::cancellation_signal signal;
    asio::steady_timer timer(io, std::chrono::microseconds(random() % 60));
    if (cancel) {
      timer.async_wait([&](const boost::system::error_code&) {
        signal.emit(asio::cancellation_type::terminal);
      });
    }
    int finished = 0;
    int stopped = 0;
    async(work_shortly(fixture.executor, turns),
          asio::bind_cancellation_slot(
              signal.slot(), asio::bind_executor(io, [&](const std::exception_ptr& error, int) {
                ++(error ? stopped : finished);
              })));
    io.run();
    REQUIRE(finished + stopped == 1);
    if (!cancel) REQUIRE(finished == 1);
    if (turns == k_never) REQUIRE(stopped == 1);
  }
}

TEST_CASE("the end of a context races with completion", "[asio][race]") {
  EngineFixture fixture;
  std::mt19937 random(13);
  const auto kept = std::make_shared<int>(0);
  for (int round = 0; round < 1000; ++round) {
    auto io = std::make_unique<asio::io_context>(1);
    for (int i = 0; i < 4; ++i) {
      async(work_shortly(fixture.executor, static_cast<int>(random() % 60)),
            asio::bind_executor(*io, [kept](const std::exception_ptr&, int) { ++*kept; }));
    }
    const auto spins = static_cast<unsigned>(random() % 20'000);
    for (volatile unsigned spin = 0; spin < spins;) spin = spin + 1;
    io.reset();
  }
  CHECK(kept.use_count() == 1);
  CHECK(*kept == 0);
}

}  // namespace
}  // namespace tidemark::test
