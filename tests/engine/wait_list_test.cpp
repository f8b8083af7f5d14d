#include <system_error>
#include <vector>

#include <tidemark/engine/sleep_for.hpp>
#include <tidemark/engine/stop.hpp>
#include <tidemark/engine/sync_wait.hpp>
#include <tidemark/engine/wait_list.hpp>
#include <tidemark/engine/when_all.hpp>

#include "../catch.hpp"
#include "../driver_fixture.hpp"

namespace tidemark::test {
namespace {

/// Appends its number when woken, minus its number when stopped.
Task<void> wait_in(WaitList& list, std::vector<int>& order, int number) {
  const bool woken = co_await list.wait();
  order.push_back(woken ? number : -number);
}

Task<void> wake_by_one(WaitList& list, std::vector<int>& order) {
  order.push_back(list.wake_one() ? 0 : -1);
  order.push_back(list.wake_one() ? 0 : -1);
  co_await schedule();
  order.push_back(list.wake_one() ? 0 : -1);
  order.push_back(list.wake_one() ? 0 : -1);  // Nobody waits any more.
}

Task<void> wake_in_order(WaitList& list, std::vector<int>& order) {
  co_await when_all(wait_in(list, order, 1), wait_in(list, order, 2), wait_in(list, order, 3),
                    wake_by_one(list, order));
}

TEST_CASE("waiters wake first come first served, never inside the wake", "[wait_list]") {
  EngineFixture fixture;
  WaitList list;
  std::vector<int> order;
  sync_wait(fixture.executor, wake_in_order(list, order));
  CHECK(order == std::vector<int>{0, 0, 1, 2, 0, -1, 3});
  CHECK(list.empty());
}

Task<void> wait_twice(WaitList& list, std::vector<int>& order, int number) {
  co_await wait_in(list, order, number);
  co_await wait_in(list, order, number + 10);
}

Task<void> wake_all_twice(WaitList& list, std::vector<int>& order) {
  list.wake_all();
  order.push_back(0);
  co_await schedule();
  list.wake_all();
}

Task<void> wake_everyone(WaitList& list, std::vector<int>& order) {
  co_await when_all(wait_twice(list, order, 1), wait_twice(list, order, 2),
                    wake_all_twice(list, order));
}

TEST_CASE("waking all wakes those that wait now", "[wait_list]") {
  EngineFixture fixture;
  WaitList list;
  std::vector<int> order;
  sync_wait(fixture.executor, wake_everyone(list, order));
  CHECK(order == std::vector<int>{0, 1, 2, 11, 12});
}

Task<void> stop_then_wake(WaitList& list, std::stop_source& source) {
  source.request_stop();
  co_await schedule();
  list.wake_all();
}

Task<void> stop_the_middle(WaitList& list, std::vector<int>& order) {
  std::stop_source source;
  co_await when_all(wait_in(list, order, 1), with_stop(wait_in(list, order, 2), source.get_token()),
                    wait_in(list, order, 3), stop_then_wake(list, source));
  co_await with_stop(wait_in(list, order, 4), source.get_token());  // Stopped before it waits.
}

TEST_CASE("a stopped waiter leaves the list and the others stay in order", "[wait_list]") {
  EngineFixture fixture;
  WaitList list;
  std::vector<int> order;
  sync_wait(fixture.executor, stop_the_middle(list, order));
  CHECK(order == std::vector<int>{-2, 1, 3, -4});
  CHECK(list.empty());
}

Task<void> wait_before_all(WaitList& list, std::vector<int>& order, int number) {
  const bool woken = co_await list.wait_first();
  order.push_back(woken ? number : -number);
}

Task<void> pass_by(WaitList& list, std::vector<int>& order) {
  std::stop_source source;
  co_await when_all(wait_before_all(list, order, 1), wait_in(list, order, 2),
                    wait_before_all(list, order, 3),
                    with_stop(wait_before_all(list, order, 4), source.get_token()),
                    wait_in(list, order, 5), stop_then_wake(list, source));
}

TEST_CASE("who goes first passes all who wait then, not those who come later", "[wait_list]") {
  EngineFixture fixture;
  WaitList list;
  std::vector<int> order;
  sync_wait(fixture.executor, pass_by(list, order));
  CHECK(order == std::vector<int>{-4, 3, 1, 2, 5});
  CHECK(list.empty());
}

Task<void> wake_and_stop(WaitList& list, std::stop_source& source, bool stop_first) {
  if (stop_first) source.request_stop();
  list.wake_one();
  if (!stop_first) source.request_stop();
  co_return;
}

Task<void> wake_and_stop_one(WaitList& list, std::vector<int>& order, bool stop_first) {
  std::stop_source source;
  co_await when_all(with_stop(wait_in(list, order, 1), source.get_token()),
                    wake_and_stop(list, source, stop_first));
}

TEST_CASE("a wake that meets a stop is not lost", "[wait_list]") {
  EngineFixture fixture;
  for (const bool stop_first : {false, true}) {
    WaitList list;
    std::vector<int> order;
    sync_wait(fixture.executor, wake_and_stop_one(list, order, stop_first));
    CHECK(order == std::vector<int>{1});
  }
}

}  // namespace
}  // namespace tidemark::test
