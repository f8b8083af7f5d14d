#include <algorithm>
#include <csignal>
#include <system_error>
#include <utility>
#include <vector>

#include <tidemark/engine/async_mutex.hpp>
#include <tidemark/engine/sleep_for.hpp>
#include <tidemark/engine/stop.hpp>
#include <tidemark/engine/sync_wait.hpp>
#include <tidemark/engine/when_all.hpp>

#include "../catch.hpp"
#include "../driver_fixture.hpp"
#include "../program.hpp"

namespace tidemark::test {
namespace {

struct Shared {
  AsyncMutex mutex;
  std::vector<int> order;
  int inside = 0;
  int most_inside = 0;
};

Task<void> let_others_run() {
  for (int turn = 0; turn < 5; ++turn) co_await schedule();
}

/// Appends its number inside the mutex, minus its number when stopped while waiting for it.
Task<void> enter(Shared& shared, int number) {
  try {
    const AsyncMutex::Guard guard = co_await shared.mutex.lock();
    shared.most_inside = std::max(shared.most_inside, ++shared.inside);
    shared.order.push_back(number);
    co_await without_stop(let_others_run());
    --shared.inside;
  } catch (const std::system_error& error) {
    if (!is_canceled(error)) throw;
    shared.order.push_back(-number);
  }
}

Task<void> enter_all(Shared& shared) {
  std::vector<Task<void>> tasks;
  for (int i = 0; i < 100; ++i) tasks.push_back(enter(shared, i));
  co_await when_all(std::move(tasks));
}

TEST_CASE("one task holds the mutex, in the order of asking", "[async_mutex]") {
  EngineFixture fixture;
  Shared shared;
  sync_wait(fixture.executor, enter_all(shared));
  CHECK(shared.most_inside == 1);
  REQUIRE(shared.order.size() == 100);
  CHECK(std::is_sorted(shared.order.begin(), shared.order.end()));
}

Task<void> hold(Shared& shared, std::stop_source* stop_before, std::stop_source* stop_after) {
  AsyncMutex::Guard guard = co_await shared.mutex.lock();
  co_await schedule();
  co_await schedule();
  if (stop_before != nullptr) stop_before->request_stop();
  guard.unlock();
  if (stop_after != nullptr) stop_after->request_stop();
  shared.order.push_back(0);  // The waiter has not run inside the unlock.
  const AsyncMutex::Guard stolen = shared.mutex.try_lock();
  if (stolen.owns_lock()) shared.order.push_back(99);
}

Task<void> hand_over(Shared& shared, bool before, bool after) {
  std::stop_source source;
  co_await when_all(hold(shared, before ? &source : nullptr, after ? &source : nullptr),
                    with_stop(enter(shared, 1), source.get_token()), enter(shared, 2));
}

TEST_CASE("unlocking hands the mutex over, also to a waiter that is stopped then",
          "[async_mutex]") {
  EngineFixture fixture;
  for (const bool before : {false, true}) {
    for (const bool after : {false, true}) {
      Shared shared;
      sync_wait(fixture.executor, hand_over(shared, before, after));
      CHECK(shared.order == std::vector<int>{0, 1, 2});
      CHECK(shared.mutex.try_lock().owns_lock());
    }
  }
}

Task<void> stop_now(std::stop_source& source) {
  source.request_stop();
  co_return;
}

Task<void> stop_waiters(Shared& shared) {
  std::stop_source source;
  co_await when_all(enter(shared, 1), with_stop(enter(shared, 2), source.get_token()),
                    enter(shared, 3), with_stop(enter(shared, 4), source.get_token()),
                    stop_now(source));
}

TEST_CASE("a stopped waiter gives up its place", "[async_mutex]") {
  EngineFixture fixture;
  Shared shared;
  sync_wait(fixture.executor, stop_waiters(shared));
  std::sort(shared.order.begin(), shared.order.end());
  CHECK(shared.order == std::vector<int>{-4, -2, 1, 3});
  CHECK(shared.mutex.try_lock().owns_lock());
}

Task<void> enter_first(Shared& shared, int number) {
  const AsyncMutex::Guard guard = co_await shared.mutex.lock_first();
  shared.order.push_back(number);
}

Task<void> pass_by(Shared& shared) {
  co_await enter_first(shared, 1);  // It is free.
  co_await when_all(enter(shared, 2), enter(shared, 3), enter_first(shared, 4));
}

TEST_CASE("who is to be first passes those who wait, not the owner", "[async_mutex]") {
  EngineFixture fixture;
  Shared shared;
  sync_wait(fixture.executor, pass_by(shared));
  CHECK(shared.order == std::vector<int>{1, 2, 4, 3});
  CHECK(shared.mutex.try_lock().owns_lock());
}

TEST_CASE("a guard moves and unlocks once", "[async_mutex]") {
  AsyncMutex mutex;
  AsyncMutex::Guard guard = mutex.try_lock();
  CHECK(guard.owns_lock());
  CHECK_FALSE(mutex.try_lock().owns_lock());
  AsyncMutex::Guard moved = std::move(guard);
  CHECK(moved.owns_lock());
  CHECK_FALSE(mutex.try_lock().owns_lock());
  moved = AsyncMutex::Guard();
  CHECK(mutex.try_lock().owns_lock());
  moved = mutex.try_lock();
  moved.unlock();
  moved.unlock();
  CHECK(mutex.try_lock().owns_lock());
}

TEST_CASE("a mutex that ends while it is held aborts", "[async_mutex]") {
  const ProgramResult result = run_program("misuse", {"end_locked"});
  CAPTURE(result.output);
  CHECK(result.signal == SIGABRT);
  CHECK(result.output.find("a mutex outlives its guards") != std::string::npos);
}

}  // namespace
}  // namespace tidemark::test
