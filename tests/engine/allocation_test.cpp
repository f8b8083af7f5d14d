// In steady state an operation allocates nothing, and without memory nothing breaks. Not for
// sanitizers, under which frames are not recycled either.

#include "../sanitizers.hpp"

#if !TIDEMARK_TEST_ADDRESS_SANITIZER && !TIDEMARK_TEST_THREAD_SANITIZER

#include <cerrno>
#include <chrono>
#include <cstddef>
#include <exception>
#include <fcntl.h>
#include <malloc.h>
#include <memory>
#include <new>
#include <string>
#include <sys/file.h>
#include <sys/mman.h>
#include <thread>
#include <unistd.h>
#include <utility>
#include <vector>

#include <boost/asio/bind_executor.hpp>
#include <boost/asio/io_context.hpp>

#include <tidemark/engine/asio.hpp>
#include <tidemark/engine/async_mutex.hpp>
#include <tidemark/engine/frame_pool.hpp>
#include <tidemark/engine/perform.hpp>
#include <tidemark/engine/scope.hpp>
#include <tidemark/engine/sleep_for.hpp>
#include <tidemark/engine/stop.hpp>
#include <tidemark/engine/sync_wait.hpp>
#include <tidemark/engine/when_all.hpp>

#include "../allocations.hpp"
#include "../catch.hpp"
#include "../driver_fixture.hpp"
#include "../file_tools.hpp"
#include "../temporary_folder.hpp"

using namespace std::chrono_literals;

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

TEST_CASE("a frame that is allocated when a thread ends is as large as others of its class") {
  // Whoever frees it hands it out again for any of them.
  struct AtTheEnd {
    ~AtTheEnd() { *frame = detail::allocate_frame(1160); }
    void** frame = nullptr;
  };
  void* frame = nullptr;
  std::thread([&frame] {
    thread_local AtTheEnd before_the_lists;  // So it ends after them.
    before_the_lists.frame = &frame;
    detail::free_frame(detail::allocate_frame(1), 1);
  }).join();
  CHECK(::malloc_usable_size(frame) >= 1280);
  ::operator delete(frame);
}

TEST_CASE("in steady state nothing is allocated", "[allocation]") {
  EngineFixture fixture;
  const int fd = ::memfd_create("data", MFD_CLOEXEC);
  CHECK(allocations_of(fixture.executor, [&](int repeats) { return operate(repeats, fd); }) == 0);
  CHECK(allocations_of(fixture.executor, [](int repeats) { return sleep_often(repeats); }) == 0);
  CHECK(allocations_of(fixture.executor, [](int repeats) { return contend(repeats); }) == 0);
  ::close(fd);
}

/// An operation that waits, on a thread of the pool in either driver, for the lock of a file.
struct LockWait : Operation {
  explicit LockWait(int file) {
    kind = Kind::lock;
    fd = file;
    flags = LOCK_SH;
    complete = [](Operation& done) noexcept { static_cast<LockWait&>(done).completed = true; };
  }
  ~LockWait() { ::close(fd); }

  bool completed = false;
};

TEST_CASE("a pool that has a thread goes on without memory for another", "[allocation]") {
  const TemporaryFolder folder;
  const auto open = [name = std::string(folder / "locked")] {
    return ::open(name.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  };
  const int holder = open();
  REQUIRE(::flock(holder, LOCK_EX) == 0);
  LockWait first(open());
  LockWait second(open());
  const std::unique_ptr<Driver> driver = Environment::real().make_driver({driver_kind()});
  REQUIRE_FALSE(driver->submit(first));
  bool finished = true;
  {
    const FailingAllocations none;
    finished = driver->submit(second);
  }
  CHECK_FALSE(finished);
  ::close(holder);
  while (!first.completed || !second.completed) driver->wait(std::nullopt);
  CHECK(first.result == 0);
  CHECK(second.result == 0);
}

TEST_CASE("without memory a folder is not listed", "[allocation]") {
  const std::size_t before = open_descriptors();
  std::vector<std::string> names;
  Operation list;
  list.kind = Operation::Kind::list_directory;
  list.fd = ::open("/proc/self/fdinfo", O_PATH | O_DIRECTORY | O_CLOEXEC);
  list.names = &names;
  {
    const FailingAllocations none;
    detail::perform_blocking(list);  // What a thread of either driver calls.
  }
  ::close(list.fd);
  CHECK(list.result == -ENOMEM);
  CHECK(open_descriptors() == before);
}

Task<void> schedule_often(int& finished) {
  for (int i = 0; i < 10; ++i) co_await schedule();
  ++finished;
}

Task<int> join_without_memory(Executor& executor) {
  int finished = 0;
  Scope scope(executor);
  scope.spawn(schedule_often(finished));
  Task<void> join = scope.join();
  {
    const FailingAllocations none;
    co_await std::move(join);
  }
  co_return finished;
}

TEST_CASE("a join that has begun needs no memory", "[allocation]") {
  EngineFixture fixture;
  CHECK(sync_wait(fixture.executor, join_without_memory(fixture.executor)) == 1);
}

Task<void> give(Executor&) {
  co_await schedule();
}

TEST_CASE("an Asio operation that finds no memory to start leaves nothing behind", "[allocation]") {
  namespace asio = boost::asio;
  EngineFixture fixture;
  int handled = 0;
  int failed = 0;
  for (std::size_t left = 0; handled == 0; ++left) {
    asio::io_context io;
    boost::asio::use_service<detail::AsioService>(io);
    auto handler = asio::bind_executor(
        io.get_executor(), [&](const std::exception_ptr& error) { handled += error ? 0 : 1; });
    Task<void> task = give(fixture.executor);
    try {
      const FailingAllocations none(left);
      async(std::move(task), std::move(handler));
    } catch (const std::bad_alloc&) {
      ++failed;
    }
    io.run();
  }
  CHECK(handled == 1);
  CHECK(failed > 0);
}

}  // namespace
}  // namespace tidemark::test

#endif
