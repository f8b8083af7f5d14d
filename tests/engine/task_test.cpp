// Tasks alone: results, errors, depth, and where they run.

#include <array>
#include <atomic>
#include <csignal>
#include <cstddef>
#include <latch>
#include <memory>
#include <stdexcept>
#include <string>

#include <tidemark/engine/sleep_for.hpp>
#include <tidemark/engine/stop.hpp>
#include <tidemark/engine/sync_wait.hpp>

#include "../catch.hpp"
#include "../driver_fixture.hpp"
#include "../program.hpp"
#include "foreign.hpp"

using namespace std::chrono_literals;

namespace tidemark::test {
namespace {

Task<int> give(int value) {
  co_return value;
}

Task<void> fail(const char* what) {
  co_await schedule();
  throw std::runtime_error(what);
}

Task<int> note(bool& ran) {
  ran = true;
  co_return 1;
}

TEST_CASE("a task runs only when it is awaited", "[task]") {
  EngineFixture fixture;
  bool ran = false;
  { const Task<int> dropped = note(ran); }
  CHECK_FALSE(ran);
  Task<int> task = note(ran);
  CHECK_FALSE(ran);
  CHECK(sync_wait(fixture.executor, std::move(task)) == 1);
  CHECK(ran);
}

Task<std::unique_ptr<int>> give_owned(int value) {
  co_await schedule();
  co_return std::make_unique<int>(value);
}

Task<int> add_owned() {
  const std::unique_ptr<int> first = co_await give_owned(40);
  const std::unique_ptr<int> second = co_await give_owned(2);
  co_return *first + *second;
}

Task<std::string> describe_failure() {
  std::string seen;
  try {
    co_await fail("lost");
  } catch (const std::runtime_error& error) {
    seen = error.what();
  }
  co_await schedule();
  co_return seen;
}

TEST_CASE("results move and errors pass to the awaiter", "[task]") {
  EngineFixture fixture;
  CHECK(sync_wait(fixture.executor, add_owned()) == 42);
  CHECK(sync_wait(fixture.executor, describe_failure()) == "lost");
  CHECK_THROWS_WITH(sync_wait(fixture.executor, fail("lost")), "lost");
}

Task<std::int64_t> await_often(int count) {
  std::int64_t sum = 0;
  for (int i = 0; i < count; ++i) sum += co_await give(i);
  co_return sum;
}

TEST_CASE("a million finished awaits do not grow the stack", "[task]") {
  EngineFixture fixture;
  CHECK(sync_wait(fixture.executor, await_often(1'000'000)) == 499'999'500'000);
}

Task<int> nest(int depth, bool throws) {
  if (depth == 0) {
    co_await schedule();
    if (throws) throw std::runtime_error("at the bottom");
    co_return 0;
  }
  const int below = co_await nest(depth - 1, throws);
  co_return below + 1;
}

TEST_CASE("tasks nest a hundred thousand deep", "[task]") {
  EngineFixture fixture;
  CHECK(sync_wait(fixture.executor, nest(100'000, false)) == 100'000);
  CHECK_THROWS_WITH(sync_wait(fixture.executor, nest(100'000, true)), "at the bottom");
}

/// An object whose tasks belong to its executor.
class Account {
 public:
  explicit Account(Executor& executor) : executor_(executor) {}
  Executor& executor() { return executor_; }

  Task<Executor*> where() {
    co_await schedule();
    co_return Executor::current();
  }

  Task<int> refuse() {
    co_await schedule();
    throw std::runtime_error("refused");
  }

  /// Asked to stop, it still writes to `bytes` for a while, as an operation in the kernel would.
  Task<void> fill(std::array<std::byte, 64>& bytes, std::latch& started, bool& ended) {
    started.count_down();
    try {
      co_await sleep_for(1h);
    } catch (const std::system_error&) {
    }
    for (std::byte& byte : bytes) {
      byte = std::byte{7};
      co_await without_stop(pause());
    }
    ended = true;
  }

 private:
  static Task<void> pause() { co_await sleep_for(10us); }

  Executor& executor_;
};

Task<Executor*> where_free(Executor&) {
  co_return Executor::current();
}

struct Places {
  Executor* awaiter_before = nullptr;
  Executor* method = nullptr;
  Executor* function = nullptr;
  Executor* awaiter_after = nullptr;
};

Task<Places> visit(Account& account) {  // An account has an executor, so this is bound as well.
  Places places;
  places.function = co_await where_free(account.executor());
  co_return places;
}

Task<Places> visit_from(Executor&, Account& account) {
  Places places;
  places.awaiter_before = Executor::current();
  places.method = co_await account.where();
  const Places inner = co_await visit(account);
  places.function = inner.function;
  places.awaiter_after = Executor::current();
  co_return places;
}

struct TwoExecutors {
  static EngineOptions options() {
    EngineOptions options = engine_options();
    options.executors = 2;
    return options;
  }
  Engine engine{options()};
  Executor& first = engine.executor();
  Executor& second = engine.executor();
};

TEST_CASE("a bound task runs on its executor and its awaiter continues on its own", "[task]") {
  TwoExecutors fixture;
  REQUIRE(&fixture.first != &fixture.second);
  Account account(fixture.second);
  for (int i = 0; i < 1000; ++i) {
    const Places places = sync_wait(fixture.engine, visit_from(fixture.first, account));
    REQUIRE(places.awaiter_before == &fixture.first);
    REQUIRE(places.method == &fixture.second);
    REQUIRE(places.function == &fixture.second);
    REQUIRE(places.awaiter_after == &fixture.first);
  }
  CHECK(sync_wait(fixture.first, account.where()) == &fixture.second);
  CHECK(sync_wait(fixture.second, where_free(fixture.first)) == &fixture.first);
  CHECK(Executor::current() == nullptr);
}

Foreign call(Account& account, Executor*& ran_on, Executor*& continued_on) {
  ran_on = co_await account.where();
  continued_on = Executor::current();
  co_await account.refuse();
}

TEST_CASE("a foreign coroutine awaits a bound task", "[task]") {
  EngineFixture fixture;
  Account account(fixture.executor);
  for (int i = 0; i < 1000; ++i) {
    Executor* ran_on = nullptr;
    Executor* continued_on = nullptr;
    Foreign foreign = call(account, ran_on, continued_on);
    REQUIRE_THROWS_WITH(foreign.wait(), "refused");
    REQUIRE(ran_on == &fixture.executor);
    REQUIRE(continued_on == &fixture.executor);
  }
}

Foreign lend(Account& account, std::latch& started, bool& ended) {
  std::array<std::byte, 64> bytes{};
  co_await account.fill(bytes, started, ended);
}

TEST_CASE("a foreign frame that is destroyed drains what it awaits", "[task]") {
  EngineFixture fixture;
  Account account(fixture.executor);
  std::latch started(1);
  bool ended = false;
  Foreign foreign = lend(account, started, ended);
  started.wait();
  foreign.destroy();  // The task has views of the frame until it ends.
  CHECK(ended);
}

TEST_CASE("destroying foreign frames races with nothing in the engine", "[task]") {
  EngineFixture fixture;
  Account account(fixture.executor);
  for (int i = 0; i < 300; ++i) {
    std::latch started(1);
    bool ended = false;
    Foreign foreign = lend(account, started, ended);
    if (i % 2 == 0) started.wait();
    foreign.destroy();
    REQUIRE(ended);
  }
}

TEST_CASE("closing the engine ends what a foreign coroutine awaits", "[task]") {
  std::latch started(1);
  bool ended = false;
  auto engine = std::make_unique<Engine>(engine_options());
  Account account(engine->executor());
  Foreign foreign = lend(account, started, ended);
  started.wait();
  engine.reset();
  CHECK(ended);
  CHECK_NOTHROW(foreign.wait());
}

void check_aborts(const char* misuse, const char* message) {
  const ProgramResult result = run_program("misuse", {misuse});
  CAPTURE(misuse, result.output, result.exit_code);
  CHECK(result.signal == SIGABRT);
  CHECK(result.output.find(message) != std::string::npos);
}

TEST_CASE("misuse of a task aborts and says why", "[task]") {
  check_aborts("destroy_running", "a running task was destroyed");
  check_aborts("await_twice", "the task was moved from");
  check_aborts("foreign_awaits_unbound", "a foreign coroutine awaits only bound tasks");
  check_aborts("resume_elsewhere", "a task continues only on its executor's thread");
}

}  // namespace
}  // namespace tidemark::test
