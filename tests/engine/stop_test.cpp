// Stopping: of operations, sleeps and everything below with_stop, with_timeout and without_stop.

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <fcntl.h>
#include <filesystem>
#include <functional>
#include <latch>
#include <stdexcept>
#include <system_error>
#include <thread>
#include <unistd.h>

#include <tidemark/engine/perform.hpp>
#include <tidemark/engine/scope.hpp>
#include <tidemark/engine/sleep_for.hpp>
#include <tidemark/engine/stop.hpp>
#include <tidemark/engine/sync_wait.hpp>
#include <tidemark/engine/when_all.hpp>

#include "../catch.hpp"
#include "../driver_fixture.hpp"
#include "../fault_driver.hpp"
#include "../temporary_folder.hpp"

using namespace std::chrono_literals;

namespace tidemark::test {
namespace {

/// A pipe, which a read of its empty end waits on for ever.
struct Pipe {
  Pipe() {
    if (::pipe2(ends.data(), O_CLOEXEC | O_NONBLOCK) != 0) throw std::runtime_error("pipe2");
    ::fcntl(ends[0], F_SETFL, 0);
  }
  ~Pipe() {
    for (const int end : ends) ::close(end);
  }
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;

  std::array<int, 2> ends{};
};

Task<std::int64_t> read_one(int fd, char& byte) {
  Operation operation;
  operation.fd = fd;
  operation.buffer = &byte;
  operation.length = 1;
  const std::int64_t result = co_await detail::perform(operation);
  co_return result;
}

Task<std::int64_t> write_one(int fd, bool to_end = false) {
  Operation operation;
  operation.kind = Operation::Kind::write;
  operation.fd = fd;
  operation.const_buffer = "x";
  operation.length = 1;
  std::int64_t result = 0;
  if (to_end) {
    result = co_await detail::perform_to_end(operation);
  } else {
    result = co_await detail::perform(operation);
  }
  co_return result;
}

Task<void> stop_after(std::stop_source& source, int turns) {
  for (int i = 0; i < turns; ++i) co_await schedule();
  source.request_stop();
}

Task<std::int64_t> stop_from_here(Task<std::int64_t> task) {
  std::stop_source source;
  auto results =
      co_await when_all(with_stop(std::move(task), source.get_token()), stop_after(source, 10));
  co_return std::get<0>(results);
}

std::int64_t stop_from_outside(Executor& executor, Task<std::int64_t> task,
                               const std::function<void()>& under_way,
                               std::stop_source source = {}) {
  const std::jthread other([&] {
    under_way();
    source.request_stop();
  });
  return sync_wait(executor, with_stop(std::move(task), source.get_token()));
}

TEST_CASE("an operation that waits for ever ends when it is stopped", "[stop][uring]") {
  EngineFixture fixture;
  if (fixture.engine.driver() != DriverKind::uring) return;
  const Pipe pipe;
  char byte = '?';
  std::stop_source stopped;
  stopped.request_stop();
  CHECK(sync_wait(fixture.executor, stop_from_here(read_one(pipe.ends[0], byte))) == -ECANCELED);
  CHECK(stop_from_outside(fixture.executor, read_one(pipe.ends[0], byte), [] {}) == -ECANCELED);
  CHECK(sync_wait(fixture.executor, with_stop(read_one(pipe.ends[0], byte), stopped.get_token())) ==
        -ECANCELED);
  CHECK(byte == '?');
}

TEST_CASE("an operation in the driver ends when it is stopped", "[stop]") {
  FaultFixture fixture;
  const TemporaryFolder folder;
  const int fd = ::open((folder / "data").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  fixture.environment.on_submit([](const Operation&, std::uint64_t) { return Fault::hold(); });
  CHECK(sync_wait(fixture.executor, stop_from_here(write_one(fd))) == -ECANCELED);
  CHECK(stop_from_outside(fixture.executor, write_one(fd),
                          [&] { fixture.environment.wait_for_held(); }) == -ECANCELED);
  CHECK(std::filesystem::file_size(folder / "data") == 0);

  fixture.environment.on_submit(nullptr);
  std::stop_source stopped;
  stopped.request_stop();
  CHECK(sync_wait(fixture.executor, with_stop(write_one(fd), stopped.get_token())) == -ECANCELED);
  CHECK(fixture.environment.count() == 0);  // Stopped before the start, it is not even submitted.
  ::close(fd);
}

TEST_CASE("bytes that moved are never reported as cancelled", "[stop]") {
  FaultFixture fixture;
  const TemporaryFolder folder;
  const int fd = ::open((folder / "data").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  fixture.environment.on_submit(
      [](const Operation&, std::uint64_t) { return Fault::hold_result(); });
  std::stop_source source;
  const std::jthread other([&] {
    fixture.environment.wait_for_held();
    source.request_stop();
    fixture.environment.release();
  });
  CHECK(sync_wait(fixture.executor, with_stop(write_one(fd), source.get_token())) == 1);
  CHECK(std::filesystem::file_size(folder / "data") == 1);
  ::close(fd);
}

TEST_CASE("what runs to its end does not heed a stop", "[stop]") {
  FaultFixture fixture;
  const TemporaryFolder folder;
  const int fd = ::open((folder / "data").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  std::stop_source stopped;
  stopped.request_stop();
  CHECK(sync_wait(fixture.executor, with_stop(write_one(fd, true), stopped.get_token())) == 1);
  CHECK(sync_wait(fixture.executor, with_stop(without_stop(write_one(fd)), stopped.get_token())) ==
        1);

  fixture.environment.on_submit([](const Operation&, std::uint64_t) { return Fault::hold(); });
  std::stop_source source;
  const std::jthread other([&] {
    fixture.environment.wait_for_held();
    source.request_stop();
    fixture.environment.release();
  });
  CHECK(sync_wait(fixture.executor, with_stop(write_one(fd, true), source.get_token())) == 1);
  ::close(fd);
}

TEST_CASE("an interrupted operation is submitted again, unless it is to stop", "[stop]") {
  FaultFixture fixture;
  const TemporaryFolder folder;
  const int fd = ::open((folder / "data").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  fixture.environment.on_submit([](const Operation&, std::uint64_t number) {
    return number <= 3 ? Fault::answer(-EINTR) : Fault::none();
  });
  CHECK(sync_wait(fixture.executor, write_one(fd)) == 1);
  CHECK(fixture.environment.count() == 4);

  std::stop_source source;
  fixture.environment.on_submit([&](const Operation&, std::uint64_t) {
    source.request_stop();
    return Fault::answer(-EINTR);
  });
  CHECK(sync_wait(fixture.executor, with_stop(write_one(fd), source.get_token())) == -ECANCELED);
  ::close(fd);
}

Task<std::int64_t> sleep_long() {
  try {
    co_await sleep_for(1h);
  } catch (const std::system_error& error) {
    co_return is_canceled(error) ? -ECANCELED : -EIO;
  }
  co_return 0;
}

TEST_CASE("a sleep ends when it is stopped", "[stop]") {
  EngineFixture fixture;
  std::stop_source stopped;
  stopped.request_stop();
  CHECK(sync_wait(fixture.executor, stop_from_here(sleep_long())) == -ECANCELED);
  CHECK(stop_from_outside(fixture.executor, sleep_long(), [] {}) == -ECANCELED);
  CHECK(sync_wait(fixture.executor, with_stop(sleep_long(), stopped.get_token())) == -ECANCELED);
}

Task<void> sleep_plainly(std::chrono::nanoseconds duration) {
  co_await sleep_for(duration);
}

Task<int> give(int value) {
  co_return value;
}

Task<void> fail() {
  throw std::runtime_error("its own");
  co_return;
}

std::error_code code_of(Executor& executor, Task<void> task) {
  try {
    sync_wait(executor, std::move(task));
  } catch (const std::system_error& error) {
    return error.code();
  }
  return {};
}

Task<int> finish_anyway() {
  co_await without_stop(sleep_plainly(3ms));
  co_return 5;
}

TEST_CASE("a timeout ends what takes longer, and only that", "[stop]") {
  EngineFixture fixture;
  Executor& executor = fixture.executor;
  CHECK(code_of(executor, with_timeout(sleep_plainly(1h), 1ms)) == std::errc::timed_out);
  CHECK(code_of(executor, with_timeout(sleep_plainly(1h), -1ms)) == std::errc::timed_out);
  CHECK_FALSE(code_of(executor, with_timeout(sleep_plainly(1ms), 1h)));
  CHECK(sync_wait(executor, with_timeout(give(3), 1h)) == 3);
  CHECK(sync_wait(executor, with_timeout(finish_anyway(), 1ms)) == 5);
  CHECK_THROWS_WITH(sync_wait(executor, with_timeout(fail(), 1h)), "its own");
  CHECK(code_of(executor, with_timeout(with_timeout(sleep_plainly(1h), 1h), 1ms)) ==
        std::errc::timed_out);
  CHECK(code_of(executor, with_timeout(with_timeout(sleep_plainly(1h), 1ms), 1h)) ==
        std::errc::timed_out);
  std::stop_source stopped;
  stopped.request_stop();
  CHECK(code_of(executor, with_stop(with_timeout(sleep_plainly(1h), 1h), stopped.get_token())) ==
        std::errc::operation_canceled);
}

struct Layers {
  std::int64_t inner = 1;
  std::int64_t outer = 1;
};

Task<void> sleep_in_layers(Layers& layers, std::stop_token inner) {
  layers.inner = co_await with_stop(sleep_long(), inner);
  layers.outer = co_await sleep_long();
}

Task<Layers> stop_layers(bool outer_first) {
  Layers layers;
  std::stop_source inner;
  std::stop_source outer;
  co_await when_all(with_stop(sleep_in_layers(layers, inner.get_token()), outer.get_token()),
                    stop_after(outer_first ? outer : inner, 5),
                    stop_after(outer_first ? inner : outer, 10));
  co_return layers;
}

Task<bool> stop_only_the_inner() {
  std::stop_source inner;
  inner.request_stop();
  const std::int64_t slept = co_await with_stop(sleep_long(), inner.get_token());
  const std::stop_token own = co_await current_stop_token();
  co_return slept == -ECANCELED && !own.stop_requested();
}

TEST_CASE("nested stops: the inner one ends the inside, the outer one all", "[stop]") {
  EngineFixture fixture;
  for (const bool outer_first : {false, true}) {
    const Layers layers = sync_wait(fixture.executor, stop_layers(outer_first));
    CHECK(layers.inner == -ECANCELED);
    CHECK(layers.outer == -ECANCELED);
  }
  CHECK(sync_wait(fixture.executor, stop_only_the_inner()));
}

Task<void> sleep_until_requested(std::stop_token token) {
  while (!token.stop_requested()) co_await sleep_for(10us);
  co_await sleep_for(10us);
}

Task<std::int64_t> sleep_sheltered(std::latch& started, bool& sheltered) {
  started.count_down();
  const std::stop_token own = co_await current_stop_token();
  co_await without_stop(sleep_until_requested(own));
  sheltered = true;
  co_await schedule();
  co_return 0;
}

TEST_CASE("without_stop shelters what it runs, and nothing after", "[stop]") {
  EngineFixture fixture;
  std::latch started(1);
  bool sheltered = false;
  try {
    stop_from_outside(fixture.executor, sleep_sheltered(started, sheltered),
                      [&] { started.wait(); });
    FAIL("it was not stopped");
  } catch (const std::system_error& error) {
    CHECK(is_canceled(error));
  }
  CHECK(sheltered);
}

}  // namespace
}  // namespace tidemark::test
