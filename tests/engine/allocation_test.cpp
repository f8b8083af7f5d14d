// In steady state an operation allocates nothing. Not for sanitizers, which bring their own
// allocators and under which frames are not recycled.

#include "../sanitizers.hpp"

#if !TIDEMARK_TEST_ADDRESS_SANITIZER && !TIDEMARK_TEST_THREAD_SANITIZER

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <new>
#include <sys/mman.h>
#include <unistd.h>

#include <tidemark/engine/async_mutex.hpp>
#include <tidemark/engine/perform.hpp>
#include <tidemark/engine/sleep_for.hpp>
#include <tidemark/engine/stop.hpp>
#include <tidemark/engine/sync_wait.hpp>
#include <tidemark/engine/when_all.hpp>

#include "../catch.hpp"
#include "../driver_fixture.hpp"

using namespace std::chrono_literals;

namespace {
std::atomic<std::size_t> allocations{0};

void* allocate(std::size_t bytes, std::size_t alignment = alignof(std::max_align_t)) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  const std::size_t rounded = (bytes + alignment) / alignment * alignment;
  void* const memory = std::aligned_alloc(alignment, rounded);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
}  // namespace

// All other forms call these. Memory resources use the aligned ones.
void* operator new(std::size_t bytes) {
  return allocate(bytes);
}
void* operator new(std::size_t bytes, std::align_val_t alignment) {
  return allocate(bytes, static_cast<std::size_t>(alignment));
}
void operator delete(void* memory) noexcept {
  std::free(memory);
}
void operator delete(void* memory, std::size_t) noexcept {
  std::free(memory);
}
void operator delete(void* memory, std::align_val_t) noexcept {
  std::free(memory);
}
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept {
  std::free(memory);
}

namespace tidemark::test {
namespace {

constexpr int k_repeats = 10'000;

Task<std::int64_t> run_operation(Operation operation) {
  const std::int64_t result = co_await detail::perform(operation);
  co_return result;
}

Operation small_operation(int repeat, int fd, char& byte) {
  Operation operation;
  operation.fd = fd;
  operation.length = 1;
  switch (repeat % 3) {
    case 0:
      operation.kind = Operation::Kind::read;
      operation.buffer = &byte;
      break;
    case 1:
      operation.kind = Operation::Kind::write;
      operation.const_buffer = &byte;
      break;
    default:
      operation.kind = Operation::Kind::truncate;  // For the pool, in either driver.
  }
  return operation;
}

Task<bool> operate(int repeats, int fd) {
  char byte = 'x';
  bool right = true;
  for (int i = 0; i < repeats; ++i) {
    const std::int64_t result = co_await run_operation(small_operation(i, fd, byte));
    right = right && result >= 0;
  }
  co_return right;
}

Task<bool> sleep_often(int repeats) {
  for (int i = 0; i < repeats; ++i) {
    co_await schedule();
    co_await sleep_for(1us);
  }
  co_return true;
}

Task<void> lock_often(AsyncMutex& mutex, int repeats) {
  for (int i = 0; i < repeats; ++i) {
    const AsyncMutex::Guard guard = co_await mutex.lock();
    co_await schedule();
  }
}

Task<bool> contend(int repeats) {
  AsyncMutex mutex;
  co_await when_all(lock_often(mutex, repeats), lock_often(mutex, repeats));
  co_return true;
}

/// Allocations of `make(k_repeats)` beyond those of a short run, which fills the lists of frames.
template <class Make>
std::size_t allocations_of(Executor& executor, const Make& make) {
  const auto run = [&](int repeats) {
    const std::size_t before = allocations.load();
    REQUIRE(sync_wait(executor, make(repeats)));
    return allocations.load() - before;
  };
  run(200);
  const std::size_t few = run(10);
  const std::size_t many = run(k_repeats);
  return many - few;
}

TEST_CASE("in steady state nothing is allocated", "[allocation]") {
  EngineFixture fixture;
  const int fd = ::memfd_create("data", MFD_CLOEXEC);
  CHECK(allocations_of(fixture.executor, [&](int repeats) { return operate(repeats, fd); }) == 0);
  CHECK(allocations_of(fixture.executor, [](int repeats) { return sleep_often(repeats); }) == 0);
  CHECK(allocations_of(fixture.executor, [](int repeats) { return contend(repeats); }) == 0);
  ::close(fd);
}

}  // namespace
}  // namespace tidemark::test

#endif
