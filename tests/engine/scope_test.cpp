#include <atomic>
#include <csignal>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include <tidemark/engine/scope.hpp>
#include <tidemark/engine/sleep_for.hpp>
#include <tidemark/engine/stop.hpp>
#include <tidemark/engine/sync_wait.hpp>
#include <tidemark/engine/when_all.hpp>

#include "../catch.hpp"
#include "../driver_fixture.hpp"
#include "../program.hpp"

using namespace std::chrono_literals;

namespace tidemark::test {
namespace {

Task<void> count(int& counter) {
  co_await schedule();
  ++counter;
}

Task<void> sleep_long(int& stopped) {
  try {
    co_await sleep_for(1h);
  } catch (const std::system_error& error) {
    if (!is_canceled(error)) throw;
    ++stopped;
  }
}

Task<void> fail_with(const char* what) {
  co_await schedule();
  throw std::runtime_error(what);
}

Task<int> spawn_and_join(Executor& executor) {
  int counter = 0;
  Scope scope(executor);
  for (int i = 0; i < 100; ++i) scope.spawn(count(counter));
  co_await scope.join();
  const int first = counter;
  scope.spawn(count(counter));  // A joined scope may go on.
  co_await scope.join();
  co_return first * 1000 + counter;
}

TEST_CASE("join waits for everything that was spawned", "[scope]") {
  EngineFixture fixture;
  CHECK(sync_wait(fixture.executor, spawn_and_join(fixture.executor)) == 100'101);
}

TEST_CASE("any thread spawns", "[scope]") {
  EngineFixture fixture;
  Scope scope(fixture.executor);
  int counter = 0;
  {
    std::vector<std::jthread> threads;
    for (int thread = 0; thread < 4; ++thread) {
      threads.emplace_back([&] {
        for (int i = 0; i < 500; ++i) scope.spawn(count(counter));
      });
    }
  }
  sync_wait(fixture.executor, scope.join());
  CHECK(counter == 2000);
}

TEST_CASE("the first failure stops the others and is what join throws", "[scope]") {
  EngineFixture fixture;
  Scope scope(fixture.executor);
  int stopped = 0;
  for (int i = 0; i < 10; ++i) scope.spawn(sleep_long(stopped));
  scope.spawn(fail_with("first"));
  scope.spawn(fail_with("second"));
  CHECK_THROWS_WITH(sync_wait(fixture.executor, scope.join()), "first");
  CHECK(stopped == 10);
  CHECK_NOTHROW(sync_wait(fixture.executor, scope.join()));
}

TEST_CASE("request_stop asks every task, from any thread", "[scope]") {
  EngineFixture fixture;
  Scope scope(fixture.executor);
  int stopped = 0;
  for (int i = 0; i < 10; ++i) scope.spawn(sleep_long(stopped));
  scope.request_stop();
  sync_wait(fixture.executor, scope.join());
  CHECK(stopped == 10);
}

Task<void> stop_now(std::stop_source& source) {
  source.request_stop();
  co_return;
}

Task<void> stop_join(Scope& scope) {
  std::stop_source source;
  co_await when_all(with_stop(scope.join(), source.get_token()), stop_now(source));
}

TEST_CASE("a join that is stopped passes that on and still waits", "[scope]") {
  EngineFixture fixture;
  Scope scope(fixture.executor);
  int stopped = 0;
  for (int i = 0; i < 10; ++i) scope.spawn(sleep_long(stopped));
  sync_wait(fixture.executor, stop_join(scope));
  CHECK(stopped == 10);
}

TEST_CASE("a scope that ends with running tasks aborts", "[scope]") {
  const ProgramResult result = run_program("misuse", {"end_unjoined"});
  CAPTURE(result.output);
  CHECK(result.signal == SIGABRT);
  CHECK(result.output.find("a scope is joined before its end") != std::string::npos);
}

}  // namespace
}  // namespace tidemark::test
