// A stop from another thread that meets a completion, thousands of times. For the sanitizers.

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <fcntl.h>
#include <random>
#include <stdexcept>
#include <system_error>
#include <unistd.h>
#include <utility>

#include <tidemark/engine/async_mutex.hpp>
#include <tidemark/engine/perform.hpp>
#include <tidemark/engine/sleep_for.hpp>
#include <tidemark/engine/stop.hpp>
#include <tidemark/engine/sync_wait.hpp>
#include <tidemark/engine/when_all.hpp>

#include "../catch.hpp"
#include "../driver_fixture.hpp"
#include "../temporary_folder.hpp"
#include "stopper.hpp"

using namespace std::chrono_literals;

namespace tidemark::test {
namespace {

constexpr int k_rounds = 4000;

Task<bool> announce(Stopper& stopper, Task<bool> task) {
  stopper.start();
  const bool finished = co_await std::move(task);
  co_return finished;
}

/// Runs what `make` gives against stops of another thread, `k_rounds` times; its result is true
/// when it finished. That is certain only where the stop comes before it or not at all, which is so
/// in every eighth round. In the others the stop comes at a moment that drifts to where half of
/// them finish; where no processor is left for that thread, all may. `check` is given each result.
template <class Make, class Check>
void race(Executor& executor, const Make& make, const Check& check) {
  constexpr unsigned k_most_spins = 1'000'000;
  Stopper stopper;
  std::mt19937 random(7);
  unsigned spins = 5'000;
  for (int round = 0; round < k_rounds; ++round) {
    std::stop_source source;
    bool finished = false;
    if (round % 16 == 0) {
      source.request_stop();
      finished = sync_wait(executor, with_stop(make(), source.get_token()));
      REQUIRE_FALSE(finished);
    } else if (round % 16 == 8) {
      finished = sync_wait(executor, with_stop(make(), source.get_token()));
      REQUIRE(finished);
    } else {
      stopper.begin(source, static_cast<unsigned>(random()) % (2 * spins));
      finished = sync_wait(executor, with_stop(announce(stopper, make()), source.get_token()));
      stopper.end();
      spins = finished ? spins - spins / 16 : std::min(spins + spins / 16 + 1, k_most_spins);
    }
    check(finished);
  }
}

template <class Make>
void race(Executor& executor, const Make& make) {
  race(executor, make, [](bool) {});
}

Task<bool> sleep_shortly(std::chrono::nanoseconds duration) {
  try {
    co_await sleep_for(duration);
  } catch (const std::system_error&) {
    co_return false;
  }
  co_return true;
}

TEST_CASE("sleeps race with stops", "[stop][race]") {
  EngineFixture fixture;
  std::mt19937 random(8);
  race(fixture.executor, [&] { return sleep_shortly(std::chrono::microseconds(random() % 40)); });
}

Task<bool> write_and_sync(int fd) {
  Operation write;
  write.kind = Operation::Kind::write;
  write.fd = fd;
  write.const_buffer = "x";
  write.length = 1;
  const std::int64_t written = co_await detail::perform(write);
  Operation truncate;  // For the pool, in either driver.
  truncate.kind = Operation::Kind::truncate;
  truncate.fd = fd;
  truncate.length = 1;
  const std::int64_t truncated = co_await detail::perform(truncate);
  co_return written == 1 && truncated == 0;
}

TEST_CASE("operations race with stops", "[stop][race]") {
  EngineFixture fixture;
  const TemporaryFolder folder;
  const int fd = ::open((folder / "data").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  race(fixture.executor, [&] { return write_and_sync(fd); });
  ::close(fd);
}

Task<std::int64_t> read_one(int fd, char& byte) {
  Operation operation;
  operation.fd = fd;
  operation.buffer = &byte;
  operation.length = 1;
  const std::int64_t result = co_await detail::perform(operation);
  co_return result;
}

Task<void> pause(int turns) {
  for (int i = 0; i < turns; ++i) co_await schedule();
}

Task<bool> read_once(int fd) {
  char byte = 0;
  const std::int64_t result = co_await read_one(fd, byte);
  if (result != 1 && result != -ECANCELED) throw std::runtime_error("neither read nor stopped");
  co_return result == 1 && byte == 'x';
}

Task<void> write_after(int fd, int turns) {
  co_await without_stop(pause(turns));
  if (::write(fd, "x", 1) != 1) throw std::runtime_error("a pipe takes a byte");
}

Task<bool> read_and_write(int read_fd, int write_fd, int turns) {
  auto results = co_await when_all(read_once(read_fd), write_after(write_fd, turns));
  co_return std::get<0>(results);
}

TEST_CASE("a byte is either read or still there", "[stop][race][uring]") {
  EngineFixture fixture;
  if (fixture.engine.driver() != DriverKind::uring) return;  // Threads read no pipes.
  std::array<int, 2> ends{};
  REQUIRE(::pipe2(ends.data(), O_CLOEXEC) == 0);
  std::mt19937 random(9);
  race(
      fixture.executor,
      [&] { return read_and_write(ends[0], ends[1], static_cast<int>(random() % 50)); },
      [&](bool read) {
        ::fcntl(ends[0], F_SETFL, O_NONBLOCK);
        char byte = 0;
        REQUIRE(::read(ends[0], &byte, 1) == (read ? -1 : 1));
        ::fcntl(ends[0], F_SETFL, 0);
      });
  for (const int end : ends) ::close(end);
}

Task<bool> wait_in(WaitList& list) {
  const bool woken = co_await list.wait();
  co_return woken;
}

Task<void> wake_later(WaitList& list, int turns) {
  co_await without_stop(pause(turns));
  list.wake_one();
}

Task<bool> wait_and_wake(int turns) {
  WaitList list;
  auto results = co_await when_all(wait_in(list), wake_later(list, turns));
  co_return std::get<0>(results);
}

TEST_CASE("wakes race with stops", "[stop][race]") {
  EngineFixture fixture;
  std::mt19937 random(10);
  race(fixture.executor, [&] { return wait_and_wake(static_cast<int>(random() % 100)); });
}

Task<void> hold_for(AsyncMutex& mutex, int turns) {
  const AsyncMutex::Guard guard = co_await mutex.lock();
  co_await without_stop(pause(turns));
}

Task<bool> enter(AsyncMutex& mutex) {
  try {
    const AsyncMutex::Guard guard = co_await mutex.lock();
    co_return guard.owns_lock();
  } catch (const std::system_error&) {
    co_return false;
  }
}

Task<bool> contend(AsyncMutex& mutex, int turns) {
  auto results = co_await when_all(hold_for(mutex, turns), enter(mutex), enter(mutex));
  co_return std::get<1>(results) && std::get<2>(results);
}

TEST_CASE("handing a mutex over races with stops, and it is never lost", "[stop][race]") {
  EngineFixture fixture;
  AsyncMutex mutex;
  std::mt19937 random(11);
  // Held for a turn at least, so that a task stopped before it asks has to wait, and is stopped.
  race(fixture.executor, [&] { return contend(mutex, 1 + static_cast<int>(random() % 100)); });
  CHECK(mutex.try_lock().owns_lock());
}

}  // namespace
}  // namespace tidemark::test
