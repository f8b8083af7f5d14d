#include <memory>
#include <stdexcept>
#include <string>
#include <system_error>
#include <tuple>
#include <variant>
#include <vector>

#include <tidemark/engine/sleep_for.hpp>
#include <tidemark/engine/stop.hpp>
#include <tidemark/engine/sync_wait.hpp>
#include <tidemark/engine/when_all.hpp>

#include "../catch.hpp"
#include "../driver_fixture.hpp"

using namespace std::chrono_literals;

namespace tidemark::test {
namespace {

Task<int> give_after(int turns, int value) {
  for (int i = 0; i < turns; ++i) co_await schedule();
  co_return value;
}

Task<std::unique_ptr<std::string>> give_text(const char* text) {
  co_return std::make_unique<std::string>(text);
}

Task<void> do_nothing() {
  co_return;
}

Task<bool> gather_some() {
  auto results = co_await when_all(give_after(5, 1), give_text("two"), do_nothing());
  static_assert(std::is_same_v<decltype(results),
                               std::tuple<int, std::unique_ptr<std::string>, std::monostate>>);
  co_return std::get<0>(results) == 1 && *std::get<1>(results) == "two";
}

TEST_CASE("when_all gives the results in order", "[when_all]") {
  EngineFixture fixture;
  CHECK(sync_wait(fixture.executor, gather_some()));
  std::vector<Task<int>> tasks;
  std::vector<int> expected;
  for (int i = 0; i < 100; ++i) {
    tasks.push_back(give_after(100 - i, i));
    expected.push_back(i);
  }
  CHECK(sync_wait(fixture.executor, when_all(std::move(tasks))) == expected);
  CHECK(sync_wait(fixture.executor, when_all(std::vector<Task<int>>())).empty());
}

Task<int> fail_after(int turns, const char* what) {
  for (int i = 0; i < turns; ++i) co_await schedule();
  throw std::runtime_error(what);
}

Task<int> sleep_long(int& stopped) {
  try {
    co_await sleep_for(1h);
  } catch (const std::system_error&) {
    ++stopped;
    throw;
  }
  co_return 0;
}

TEST_CASE("the failure that came first stops the others and is thrown", "[when_all]") {
  EngineFixture fixture;
  int stopped = 0;
  CHECK_THROWS_WITH(
      sync_wait(fixture.executor, when_all(sleep_long(stopped), fail_after(9, "later"),
                                           fail_after(3, "first"), sleep_long(stopped))),
      "first");
  CHECK(stopped == 2);
}

Task<void> stop_now(std::stop_source& source) {
  co_await schedule();
  source.request_stop();
}

Task<int> sleep_all(int& stopped) {
  std::vector<Task<int>> tasks;
  for (int i = 0; i < 10; ++i) tasks.push_back(sleep_long(stopped));
  const std::vector<int> results = co_await when_all(std::move(tasks));
  co_return static_cast<int>(results.size());
}

Task<void> stop_all(int& stopped) {
  std::stop_source source;
  co_await when_all(with_stop(sleep_all(stopped), source.get_token()), stop_now(source));
}

TEST_CASE("a stop of the awaiter stops all", "[when_all]") {
  EngineFixture fixture;
  int stopped = 0;
  try {
    sync_wait(fixture.executor, stop_all(stopped));
    FAIL("it was not stopped");
  } catch (const std::system_error& error) {
    CHECK(is_canceled(error));
  }
  CHECK(stopped == 10);
}

Task<Executor*> where(Executor&) {
  co_await schedule();
  co_return Executor::current();
}

Task<bool> gather_from(Executor& here, Executor& there) {
  bool right = true;
  for (int i = 0; i < 1000; ++i) {
    const auto places = co_await when_all(where(there), where(here), where(there));
    right = right && std::get<0>(places) == &there && std::get<1>(places) == &here &&
            std::get<2>(places) == &there && Executor::current() == &here;
  }
  co_return right;
}

TEST_CASE("tasks of other executors run there, at once", "[when_all]") {
  EngineOptions options = engine_options();
  options.executors = 2;
  Engine engine(options);
  Executor& here = engine.executor();
  Executor& there = engine.executor();
  CHECK(sync_wait(here, gather_from(here, there)));
}

}  // namespace
}  // namespace tidemark::test
