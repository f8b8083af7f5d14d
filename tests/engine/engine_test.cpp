// The engine as a whole: its options, the choice of a driver, closing, and sync_wait.

#include <atomic>
#include <cerrno>
#include <csignal>
#include <fcntl.h>
#include <filesystem>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <unistd.h>
#include <vector>

#include <tidemark/engine/perform.hpp>
#include <tidemark/engine/root.hpp>
#include <tidemark/engine/sleep_for.hpp>
#include <tidemark/engine/sync_wait.hpp>

#include "../catch.hpp"
#include "../driver_fixture.hpp"
#include "../fault_driver.hpp"
#include "../program.hpp"
#include "../sanitizers.hpp"
#include "../temporary_folder.hpp"
#include "foreign.hpp"

using namespace std::chrono_literals;

namespace tidemark::test {
namespace {

Task<int> give(int value) {
  co_await schedule();
  co_return value;
}

int use(const EngineOptions& options) {
  Engine engine(options);
  return sync_wait(engine, give(7));
}

void check_refused(const EngineOptions& options, const char* name) {
  try {
    use(options);
    FAIL("not refused: " << name);
  } catch (const std::system_error& error) {
    CHECK(error.code() == std::errc::invalid_argument);
    CHECK(std::string(error.what()).find(name) != std::string::npos);
  }
}

TEST_CASE("options are checked at their edges", "[engine]") {
  const unsigned most_executors = k_thread_sanitizer ? 32 : 256;
  EngineOptions options = engine_options();
  const auto with = [&](auto member, auto value) {
    EngineOptions changed = options;
    changed.*member = value;
    return changed;
  };
  CHECK(use(options) == 7);
  check_refused(with(&EngineOptions::executors, 0U), "executors");
  CHECK(use(with(&EngineOptions::executors, 1U)) == 7);
  CHECK(use(with(&EngineOptions::executors, most_executors)) == 7);
  check_refused(with(&EngineOptions::executors, 257U), "executors");
  check_refused(with(&EngineOptions::queue_entries, 7U), "queue_entries");
  CHECK(use(with(&EngineOptions::queue_entries, 8U)) == 7);
  CHECK(use(with(&EngineOptions::queue_entries, 9U)) == 7);
  CHECK(use(with(&EngineOptions::queue_entries, 4096U)) == 7);
  check_refused(with(&EngineOptions::queue_entries, 4097U), "queue_entries");
  check_refused(with(&EngineOptions::worker_threads, 0U), "worker_threads");
  CHECK(use(with(&EngineOptions::worker_threads, 1U)) == 7);
  CHECK(use(with(&EngineOptions::worker_threads, 64U)) == 7);
  check_refused(with(&EngineOptions::worker_threads, 65U), "worker_threads");
  constexpr std::size_t k_least = std::size_t{4} << 20;
  check_refused(with(&EngineOptions::bytes_in_flight, k_least - 1), "bytes_in_flight");
  CHECK(use(with(&EngineOptions::bytes_in_flight, k_least)) == 7);
  CHECK(use(with(&EngineOptions::bytes_in_flight, k_least + 1)) == 7);
  check_refused(with(&EngineOptions::environment, static_cast<Environment*>(nullptr)),
                "environment");
}

TEST_CASE("executors take turns", "[engine]") {
  EngineOptions options = engine_options();
  options.executors = 3;
  Engine engine(options);
  std::vector<Executor*> seen;
  for (int i = 0; i < 6; ++i) seen.push_back(&engine.executor());
  CHECK(std::vector<Executor*>(seen.begin(), seen.begin() + 3) ==
        std::vector<Executor*>(seen.begin() + 3, seen.end()));
  CHECK(seen[0] != seen[1]);
  CHECK(seen[1] != seen[2]);
}

std::string choice(const std::vector<std::string>& denied) {
  const std::string path =
      (std::filesystem::path(TIDEMARK_TEST_PROGRAMS_DIR) / "driver_choice").string();
  ProgramResult result;
  if (denied.empty()) {
    result = run_program("driver_choice");
  } else {
    result = run_program("deny_io_uring", {denied[0], path});
  }
  CHECK(result.exit_code == 0);
  return result.output;
}

TEST_CASE("where io_uring is refused automatic steps down and says why, once", "[engine]") {
  CHECK(choice({"EPERM"}) ==
        "automatic: threads\n"
        "warning: driver: threads, because io_uring_setup: Operation not permitted\n"
        "uring: io_uring_setup: Operation not permitted\n");
  CHECK(choice({"ENOSYS"}) ==
        "automatic: threads\n"
        "warning: driver: threads, because io_uring_setup: Function not implemented\n"
        "uring: io_uring_setup: Function not implemented\n");
}

TEST_CASE("where io_uring works automatic uses it and says so, once", "[engine][uring]") {
  CHECK(choice({}) ==
        "automatic: uring\n"
        "info: driver: io_uring\n"
        "uring: works\n");
}

struct Counts {
  std::atomic<int> finished{0};
  std::atomic<int> stopped{0};
};

Task<void> sleep_and_count(Counts& counts, std::chrono::nanoseconds duration) {
  try {
    co_await sleep_for(duration);
    ++counts.finished;
  } catch (const std::system_error& error) {
    if (is_canceled(error)) ++counts.stopped;
  }
}

void start(Executor& executor, Task<void> task) {
  detail::Root<void>::start(
      executor, std::move(task), [](Task<void>&) {}, executor.engine_stop());
}

TEST_CASE("close waits for what ends in time, and the engine goes on", "[engine]") {
  EngineOptions options = engine_options();
  options.executors = 2;
  Engine engine(options);
  Counts counts;
  for (int i = 0; i < 100; ++i) {
    start(engine.executor(), sleep_and_count(counts, std::chrono::microseconds(10 * i)));
  }
  engine.close(std::chrono::nanoseconds::max());
  CHECK(counts.finished == 100);
  CHECK(sync_wait(engine, give(3)) == 3);
}

TEST_CASE("close stops what takes longer than its grace", "[engine]") {
  EngineOptions options = engine_options();
  options.executors = 2;
  Engine engine(options);
  Counts counts;
  for (int i = 0; i < 100; ++i) start(engine.executor(), sleep_and_count(counts, 1h));
  engine.close(1ms);
  CHECK(counts.stopped == 100);
  engine.close(0s);
}

Task<void> write_and_count(int fd, std::uint64_t offset, std::atomic<int>& written) {
  Operation operation;
  operation.kind = Operation::Kind::write;
  operation.fd = fd;
  operation.const_buffer = "x";
  operation.length = 1;
  operation.offset = offset;
  const std::int64_t result = co_await detail::perform(operation);
  if (result == 1) ++written;
}

TEST_CASE("an engine that ends loses no operation in flight", "[engine]") {
  constexpr int k_operations = 300;
  const TemporaryFolder folder;
  const int fd = ::open((folder / "data").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  FaultEnvironment environment;
  environment.on_submit([](const Operation&, std::uint64_t) { return Fault::hold_result(); });
  EngineOptions options = engine_options();
  options.environment = &environment;
  std::atomic<int> written{0};
  auto engine = std::make_unique<Engine>(options);
  for (int i = 0; i < k_operations; ++i) {
    start(engine->executor(), write_and_count(fd, static_cast<std::uint64_t>(i), written));
  }
  environment.wait_for_held(k_operations);
  const std::jthread other([&] { environment.release(); });
  engine.reset();
  CHECK(written == k_operations);
  CHECK(std::filesystem::file_size(folder / "data") == k_operations);
  ::close(fd);
}

Task<void> hop(Engine& engine, int hops_left, std::atomic<int>& hops) {
  ++hops;
  if (hops_left > 0) start(engine.executor(), hop(engine, hops_left - 1, hops));
  co_return;
}

TEST_CASE("a task that starts another elsewhere as it ends is drained with it", "[engine]") {
  for (int round = 0; round < 50; ++round) {
    EngineOptions options = engine_options();
    options.executors = 2;
    std::atomic<int> hops{0};
    {
      Engine engine(options);
      start(engine.executor(), hop(engine, 499, hops));
    }
    REQUIRE(hops == 500);
  }
}

Task<int> give_bound(Executor&, int value) {
  co_return value;
}

Foreign call(Executor& executor, int& result) {
  result = co_await give_bound(executor, 9);
}

TEST_CASE("an engine may end while those who posted to it are on their way out", "[engine]") {
  for (int round = 0; round < 200; ++round) {
    auto engine = std::make_unique<Engine>(engine_options());
    int result = 0;
    Foreign foreign = call(engine->executor(), result);  // Posts; its end does not wait for that.
    std::jthread other([&, &executor = engine->executor()] {
      int ignored = 0;
      call(executor, ignored).wait();
    });
    foreign.wait();
    other.join();
    engine.reset();
    REQUIRE(result == 9);
  }
}

Task<int> fail() {
  co_await schedule();
  throw std::runtime_error("failed");
}

TEST_CASE("sync_wait gives the result or throws the error", "[engine]") {
  EngineFixture fixture;
  CHECK(sync_wait(fixture.engine, give(5)) == 5);
  CHECK_THROWS_WITH(sync_wait(fixture.engine, fail()), "failed");
  CHECK(sync_wait(fixture.engine, give_bound(fixture.executor, 6)) == 6);
}

TEST_CASE("many threads wait at once", "[engine]") {
  EngineFixture fixture;
  std::atomic<int> sum{0};
  {
    std::vector<std::jthread> threads;
    for (int thread = 0; thread < 8; ++thread) {
      threads.emplace_back([&] {
        for (int i = 0; i < 500; ++i) sum += sync_wait(fixture.executor, give(1));
      });
    }
  }
  CHECK(sum == 4000);
}

void check_aborts(const char* misuse, const char* message) {
  const ProgramResult result = run_program("misuse", {misuse});
  CAPTURE(misuse, result.output, result.exit_code);
  CHECK(result.signal == SIGABRT);
  CHECK(result.output.find(message) != std::string::npos);
}

TEST_CASE("what would block an executor aborts and says why", "[engine]") {
  check_aborts("close_own", "an engine is not closed by its own tasks");
  check_aborts("wait_inside", "sync_wait would block an executor");
}

}  // namespace
}  // namespace tidemark::test
