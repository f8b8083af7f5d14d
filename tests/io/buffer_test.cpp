#include <algorithm>
#include <atomic>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <system_error>
#include <thread>
#include <vector>

#include <tidemark/engine/scope.hpp>
#include <tidemark/engine/sleep_for.hpp>
#include <tidemark/engine/sync_wait.hpp>
#include <tidemark/engine/when_all.hpp>
#include <tidemark/io/buffer.hpp>

#include "catch.hpp"
#include "driver_fixture.hpp"
#include "file_tools.hpp"

using namespace tidemark;
using namespace tidemark::test;

namespace {

constexpr std::size_t k_page = BufferPool::k_alignment;

Task<void> nothing() {
  co_return;
}

struct PoolFixture : EngineFixture {
  explicit PoolFixture(std::size_t max_bytes = 4 * k_page) : pool(executor, max_bytes) {}

  Buffer acquire(std::size_t bytes) { return sync_wait(executor, pool.acquire(bytes)); }
  std::error_code error(std::size_t bytes) { return error_of(executor, pool.acquire(bytes)); }
  /// Returns once the executor has done all it can without an event.
  void settle() { sync_wait(executor, nothing()); }

  BufferPool pool;
};

/// An acquire that was started and may have to wait. It ends before the test does.
struct Acquisition {
  Acquisition(PoolFixture& fixture, std::size_t bytes) : executor(fixture.executor) {
    scope.emplace(executor);
    scope->spawn(run(*this, fixture.pool, bytes));
    fixture.settle();
  }
  ~Acquisition() { finish(); }

  static Task<void> run(Acquisition& self, BufferPool& pool, std::size_t bytes) {
    try {
      self.buffer = co_await pool.acquire(bytes);
    } catch (const std::system_error& error) {
      self.error = error.code();
    }
    self.done = true;
  }
  /// Blocks until it has finished.
  void finish() { sync_wait(executor, scope->join()); }
  void stop() {
    scope->request_stop();
    finish();
  }

  Executor& executor;
  std::optional<Scope> scope;
  Buffer buffer;
  std::error_code error;
  std::atomic<bool> done{false};
};

}  // namespace

TEST_CASE_METHOD(PoolFixture, "a buffer is aligned, owned and sized") {
  Buffer buffer = acquire(5000);
  CHECK(buffer.size() == 5000);
  CHECK(buffer.capacity() == 2 * k_page);
  CHECK(reinterpret_cast<std::uintptr_t>(buffer.data()) % k_page == 0);
  CHECK(pool.bytes_in_use() == 2 * k_page);
  buffer.resize(buffer.capacity());
  CHECK(buffer.bytes().size() == 2 * k_page);
  buffer.bytes().back() = std::byte{7};
  buffer.resize(0);
  CHECK(buffer.bytes().empty());

  Buffer moved = std::move(buffer);
  CHECK(moved.capacity() == 2 * k_page);
  CHECK(moved.data()[2 * k_page - 1] == std::byte{7});
  CHECK(buffer.data() == nullptr);  // NOLINT: what was moved from is empty.
  CHECK(pool.bytes_in_use() == 2 * k_page);
  moved = Buffer();
  CHECK(pool.bytes_in_use() == 0);
}

TEST_CASE_METHOD(PoolFixture, "memory is used again") {
  const std::byte* const first = acquire(k_page).data();
  CHECK(acquire(k_page).data() == first);
}

TEST_CASE_METHOD(PoolFixture, "a pool's bound holds at its edge") {
  CHECK(error(0) == std::errc::invalid_argument);
  CHECK_FALSE(error(4 * k_page - 1));
  CHECK_FALSE(error(4 * k_page));
  CHECK(error(4 * k_page + 1) == std::errc::invalid_argument);
  CHECK(error(std::numeric_limits<std::size_t>::max()) == std::errc::invalid_argument);
  CHECK(error(std::numeric_limits<std::size_t>::max() - k_page + 1) == std::errc::invalid_argument);
  CHECK(pool.bytes_in_use() == 0);

  const Buffer most = acquire(3 * k_page - 1);
  const Buffer rest = acquire(1);
  CHECK(pool.bytes_in_use() == 4 * k_page);
  Acquisition more(*this, 1);
  CHECK_FALSE(more.done);
  more.stop();
  CHECK(more.error == std::errc::operation_canceled);
}

TEST_CASE("a bound that is no multiple of the alignment is rounded down") {
  PoolFixture fixture(2 * k_page - 1);
  CHECK_FALSE(fixture.error(k_page));
  CHECK(fixture.error(k_page + 1) == std::errc::invalid_argument);
  PoolFixture tiny(k_page - 1);
  CHECK(tiny.error(1) == std::errc::invalid_argument);
}

TEST_CASE_METHOD(PoolFixture, "kept memory makes room for other sizes") {
  // More than the bound would be kept and out at once otherwise, which the pool asserts.
  for (std::size_t pages = 1; pages <= 4; ++pages) {
    std::vector<Buffer> all;
    for (std::size_t i = 0; i < 4 / pages; ++i) all.push_back(acquire(pages * k_page));
  }
  for (std::size_t pages = 4; pages >= 1; --pages) CHECK_FALSE(error(pages * k_page));
}

TEST_CASE_METHOD(PoolFixture, "the first to come is the first served, whatever its size") {
  std::optional<Buffer> one = acquire(k_page);
  std::optional<Buffer> rest = acquire(3 * k_page);
  Acquisition large(*this, 3 * k_page);
  Acquisition small(*this, k_page);
  one.reset();
  settle();
  CHECK_FALSE(large.done);
  CHECK_FALSE(small.done);
  rest.reset();
  large.finish();
  small.finish();
  CHECK(large.buffer.capacity() == 3 * k_page);
  CHECK(small.buffer.capacity() == k_page);
  CHECK(pool.bytes_in_use() == 4 * k_page);
}

TEST_CASE_METHOD(PoolFixture, "those who wait are served in order") {
  std::optional<Buffer> all = acquire(4 * k_page);
  Acquisition first(*this, 4 * k_page);
  Acquisition second(*this, 4 * k_page);
  Acquisition third(*this, 4 * k_page);
  all.reset();
  first.finish();
  settle();
  CHECK_FALSE(second.done);
  first.buffer = Buffer();
  second.finish();
  settle();
  CHECK_FALSE(third.done);
  second.buffer = Buffer();
  third.finish();
  CHECK(third.buffer.capacity() == 4 * k_page);
}

TEST_CASE_METHOD(PoolFixture, "who stops waiting leaves the line") {
  std::optional<Buffer> all = acquire(4 * k_page);
  Acquisition first(*this, 4 * k_page);
  Acquisition second(*this, k_page);
  Acquisition third(*this, k_page);
  SECTION("the first in line") {
    first.stop();
    CHECK(first.error == std::errc::operation_canceled);
    CHECK_FALSE(second.done);
    all.reset();
    second.finish();
    CHECK(second.buffer.size() == k_page);
  }
  SECTION("another") {
    second.stop();
    CHECK(second.error == std::errc::operation_canceled);
    all.reset();
    first.finish();
    CHECK(first.buffer.size() == 4 * k_page);
    first.buffer = Buffer();
  }
  third.finish();
  CHECK(third.buffer.size() == k_page);
}

TEST_CASE_METHOD(PoolFixture, "a buffer that is given back in another thread wakes who waits") {
  std::optional<Buffer> all = acquire(4 * k_page);
  Acquisition waiting(*this, k_page);
  std::thread([&] { all.reset(); }).join();
  waiting.finish();
  CHECK(waiting.buffer.size() == k_page);
}

TEST_CASE_METHOD(PoolFixture, "a release while the wake for another is on its way is not lost") {
  // The executor's queue, turn by turn; `wake` is what a release from another thread posts.
  //   0  early, late     late asks the first in line to stop
  //   1  early, stop, late
  //   2  early, first, late     early releases in another thread; first leaves its place to second
  //   3  second, late, wake, other     second finds no room, late releases the rest
  std::optional<Buffer> one = acquire(2 * k_page);
  std::optional<Buffer> rest = acquire(2 * k_page);
  Acquisition first(*this, 4 * k_page);
  Acquisition second(*this, 4 * k_page);
  Scope other(executor);
  const auto early = [](std::optional<Buffer>& buffer, Scope& scope) -> Task<void> {
    co_await schedule();
    co_await schedule();
    std::thread([&] {
      buffer.reset();
      scope.spawn(nothing());
    }).join();
  };
  const auto late = [](Acquisition& stopped, std::optional<Buffer>& buffer) -> Task<void> {
    stopped.scope->request_stop();
    for (int turn = 0; turn < 3; ++turn) co_await schedule();
    CHECK(stopped.done);
    buffer.reset();
  };
  const auto both = [](Task<void> a, Task<void> b) -> Task<void> {
    co_await when_all(std::move(a), std::move(b));
  };
  sync_wait(executor, both(early(one, other), late(first, rest)));
  second.finish();
  CHECK(second.buffer.size() == 4 * k_page);
  sync_wait(executor, other.join());
}

TEST_CASE("buffers outlive their pool, its waiters and their engine") {
  Buffer buffer;
  Buffer idle;
  {
    PoolFixture fixture;
    buffer = fixture.acquire(3 * k_page);
    idle = fixture.acquire(k_page);
    Acquisition waiting(fixture, k_page);
    waiting.stop();  // It has found no room and is gone: nobody is to be woken.
  }
  buffer.bytes().front() = std::byte{1};
  std::thread([&] { buffer = Buffer(); }).join();
  idle = Buffer();
}

TEST_CASE("a pool goes away while a task waits for it") {
  EngineFixture fixture;
  auto pool = std::make_unique<BufferPool>(fixture.executor, k_page);
  std::optional<Buffer> all = sync_wait(fixture.executor, pool->acquire(k_page));
  std::size_t size = 0;
  Scope scope(fixture.executor);
  const auto wait = [](BufferPool& from, std::size_t& got) -> Task<void> {
    const Buffer buffer = co_await from.acquire(1);
    got = buffer.size();
  };
  scope.spawn(wait(*pool, size));
  sync_wait(fixture.executor, nothing());
  pool.reset();
  all.reset();
  sync_wait(fixture.executor, scope.join());
  CHECK(size == 1);
}

TEST_CASE_METHOD(PoolFixture, "a hundred tasks share four pages") {
  constexpr int k_rounds = 20;
  std::size_t most = 0;
  int finished = 0;
  const auto use = [](BufferPool& from, std::size_t pages, std::size_t& largest,
                      int& count) -> Task<void> {
    for (int round = 0; round < k_rounds; ++round) {
      Buffer buffer = co_await from.acquire(pages * k_page);
      largest = std::max(largest, from.bytes_in_use());
      co_await schedule();
    }
    ++count;
  };
  Scope scope(executor);
  for (std::size_t i = 0; i < 100; ++i) scope.spawn(use(pool, i % 4 + 1, most, finished));
  sync_wait(executor, scope.join());
  CHECK(finished == 100);
  CHECK(most == 4 * k_page);
  CHECK(pool.bytes_in_use() == 0);
}

TEST_CASE("buffers travel to other threads while tasks wait and stop") {
  constexpr int k_rounds = 2000;
  PoolFixture fixture(2 * k_page);
  for (int round = 0; round < k_rounds; ++round) {
    Buffer first = fixture.acquire(k_page);
    Buffer second = fixture.acquire(k_page);
    Acquisition waiting(fixture, 2 * k_page);
    Acquisition next(fixture, k_page);
    std::thread one([&] { first = Buffer(); });
    std::thread other([&] { second = Buffer(); });
    if (round % 2 == 0) waiting.scope->request_stop();
    waiting.finish();
    waiting.buffer = Buffer();
    next.finish();
    one.join();
    other.join();
    REQUIRE(next.buffer.size() == k_page);
  }
  CHECK(fixture.pool.bytes_in_use() == 0);
}
