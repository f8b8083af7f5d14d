// The executor's queue and timers.

#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>
#include <semaphore>
#include <thread>
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

Task<void> nothing() {
  co_return;
}

struct Numbered : WorkItem {
  std::vector<int>* order = nullptr;
  int number = 0;
};

TEST_CASE("items run in the order in which they were posted", "[executor]") {
  EngineFixture fixture;
  std::vector<int> order;
  std::vector<Numbered> items(1000);
  for (int i = 0; i < 1000; ++i) {
    Numbered& item = items[static_cast<std::size_t>(i)];
    item.number = i;
    item.order = &order;
    item.run = [](WorkItem& base) noexcept {
      auto& self = static_cast<Numbered&>(base);
      self.order->push_back(self.number);
    };
    fixture.executor.post(item);
  }
  sync_wait(fixture.executor, nothing());
  REQUIRE(order.size() == 1000);
  CHECK(std::is_sorted(order.begin(), order.end()));
}

struct Counted : WorkItem {
  std::atomic<int>* left = nullptr;
  std::binary_semaphore* all_ran = nullptr;
  int runs = 0;
};

TEST_CASE("every item posted by any thread runs exactly once", "[executor]") {
  constexpr std::size_t k_threads = 4;
  constexpr std::size_t k_items = 10'000;
  EngineFixture fixture;
  std::atomic<int> left{k_threads * k_items};
  std::binary_semaphore all_ran(0);
  std::vector<std::vector<Counted>> items(k_threads);
  for (auto& mine : items) mine = std::vector<Counted>(k_items);
  {
    std::vector<std::jthread> threads;
    for (auto& mine : items) {
      threads.emplace_back([&] {
        for (Counted& item : mine) {
          item.left = &left;
          item.all_ran = &all_ran;
          item.run = [](WorkItem& base) noexcept {
            auto& self = static_cast<Counted&>(base);
            ++self.runs;
            if (self.left->fetch_sub(1) == 1) self.all_ran->release();
          };
          fixture.executor.post(item);
        }
      });
    }
  }
  all_ran.acquire();
  for (const auto& mine : items) {
    CHECK(
        std::all_of(mine.begin(), mine.end(), [](const Counted& item) { return item.runs == 1; }));
  }
}

TEST_CASE("a post wakes an executor that sleeps", "[executor]") {
  EngineFixture fixture;
  for (int i = 0; i < 5000; ++i) sync_wait(fixture.executor, nothing());  // A lost wake hangs.
}

struct Nesting : WorkItem {
  Executor* executor = nullptr;
  Nesting* other = nullptr;
  bool inside = false;
  bool nested = false;
  bool ran = false;
};

TEST_CASE("an item never runs inside another", "[executor]") {
  EngineFixture fixture;
  Nesting outer;
  Nesting inner;
  outer.executor = &fixture.executor;
  outer.other = &inner;
  inner.other = &outer;
  outer.run = [](WorkItem& base) noexcept {
    auto& self = static_cast<Nesting&>(base);
    self.inside = true;
    self.executor->run_next(*self.other);
    self.inside = false;
  };
  inner.run = [](WorkItem& base) noexcept {
    auto& self = static_cast<Nesting&>(base);
    self.nested = self.other->inside;
    self.ran = true;
  };
  fixture.executor.post(outer);
  sync_wait(fixture.executor, nothing());
  CHECK(inner.ran);
  CHECK_FALSE(inner.nested);
}

Task<void> append_after(std::chrono::nanoseconds pause, std::vector<int>& order, int number) {
  co_await sleep_for(pause);
  order.push_back(number);
}

/// A clock that only tests move, so that sleeps of one length end at one deadline.
class StillClock : public Environment {
 public:
  TimePoint now() override { return TimePoint(std::chrono::nanoseconds(now_ns.load())); }
  std::atomic<std::int64_t> now_ns{1};
};

/// Lets a millisecond pass, several times, and notes it before.
Task<void> advance(StillClock& clock, std::vector<int>& order, int times) {
  for (int i = 0; i < times; ++i) {
    for (int turn = 0; turn < 100; ++turn) co_await schedule();
    order.push_back(-1);
    clock.now_ns += 1'000'000;
  }
}

Task<void> sleep_in_order(StillClock& clock, std::vector<int>& order) {
  co_await when_all(append_after(3ms, order, 4), append_after(1ms, order, 1),
                    append_after(2ms, order, 3), append_after(1ms, order, 2),
                    append_after(0ms, order, 0), advance(clock, order, 3));
}

TEST_CASE("sleepers wake by the environment's clock, equal ones as they came", "[executor]") {
  StillClock clock;
  EngineOptions options = engine_options();
  options.environment = &clock;
  Engine engine(options);
  std::vector<int> order;
  sync_wait(engine, sleep_in_order(clock, order));
  CHECK(order == std::vector<int>{0, -1, 1, 2, -1, 3, -1, 4});
}

Task<std::chrono::nanoseconds> measure(std::chrono::nanoseconds pause) {
  const auto start = std::chrono::steady_clock::now();
  co_await sleep_for(pause);
  co_return std::chrono::steady_clock::now() - start;
}

TEST_CASE("a sleep is never too short", "[executor]") {
  EngineFixture fixture;
  for (const auto pause : {0us, 1us, 50us, 1000us, 2500us}) {
    CHECK(sync_wait(fixture.executor, measure(pause)) >= pause);
  }
  sync_wait(fixture.executor, measure(-1h));  // It returns.
}

Task<void> stop_soon(std::stop_source& source) {
  for (int i = 0; i < 10; ++i) co_await schedule();
  source.request_stop();
}

Task<bool> sleep_forever() {
  try {
    co_await sleep_for(std::chrono::nanoseconds::max());
  } catch (const std::system_error& error) {
    co_return is_canceled(error);
  }
  co_return false;
}

Task<bool> stop_endless_sleep() {
  std::stop_source source;
  auto results =
      co_await when_all(with_stop(sleep_forever(), source.get_token()),
                        with_timeout(stop_soon(source), std::chrono::nanoseconds::max()));
  co_return std::get<0>(results);
}

TEST_CASE("the longest duration does not overflow", "[executor]") {
  EngineFixture fixture;
  CHECK(sync_wait(fixture.executor, stop_endless_sleep()));
}

Task<void> log_twice(std::vector<int>& order, int number) {
  order.push_back(number);
  co_await schedule();
  order.push_back(number);
}

Task<void> interleave(std::vector<int>& order) {
  co_await when_all(log_twice(order, 1), log_twice(order, 2), log_twice(order, 3));
}

TEST_CASE("a thread's longest pause but one does not overflow", "[executor]") {
  constexpr int k_wakes = 1000;
  int turns = 0;
  {
    std::counting_semaphore turned(0);
    const std::unique_ptr<TurnThread> thread = Environment::real().start_thread("pause", [&] {
      ++turns;
      turned.release();
      return k_until_woken - 1ns;
    });
    for (int i = 0; i < k_wakes; ++i) {
      turned.acquire();
      thread->wake();
    }
    turned.acquire();
  }
  CHECK(turns == 1 + k_wakes);
}

TEST_CASE("schedule lets others run first", "[executor]") {
  EngineFixture fixture;
  std::vector<int> order;
  sync_wait(fixture.executor, interleave(order));
  CHECK(order == std::vector<int>{1, 2, 3, 1, 2, 3});
}

struct Tick : Timer {
  int runs = 0;
};

Task<int> remove_timers(Executor& executor) {
  Tick kept;
  Tick removed;
  for (Tick* tick : {&kept, &removed}) {
    tick->run = [](WorkItem& item) noexcept { ++static_cast<Tick&>(item).runs; };
    executor.add_timer(*tick, executor.environment().now());
  }
  executor.remove_timer(removed);
  executor.remove_timer(removed);
  co_await sleep_for(1ms);
  executor.remove_timer(kept);
  co_return 10 * kept.runs + removed.runs;
}

TEST_CASE("a timer fires once, and not after it was removed", "[executor]") {
  EngineFixture fixture;
  CHECK(sync_wait(fixture.executor, remove_timers(fixture.executor)) == 10);
}

}  // namespace
}  // namespace tidemark::test
