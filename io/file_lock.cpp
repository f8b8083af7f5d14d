#include <algorithm>
#include <atomic>
#include <cerrno>
#include <optional>
#include <sys/file.h>

#include <tidemark/engine/perform.hpp>
#include <tidemark/engine/sleep_for.hpp>
#include <tidemark/io/file_lock.hpp>

namespace tidemark {
namespace {

using namespace std::chrono_literals;

// All waiters of the process together try about this often, so that few of them are quick and
// many of them cheap.
constexpr std::chrono::nanoseconds k_pause_for_each_waiter = 250us;
constexpr std::chrono::nanoseconds k_shortest_bound = 5ms;

std::atomic<std::int64_t> waiters{0};

/// One of them, and its pauses.
class Waiter {
 public:
  Waiter() { ++waiters; }
  ~Waiter() { --waiters; }
  Waiter(const Waiter&) = delete;
  Waiter& operator=(const Waiter&) = delete;

  /// When to try again. `random` spreads the waiters over half to all of the pause. They wake at
  /// common ticks, because a turn of the executor costs more than a try.
  TimePoint next_try(TimePoint now, std::uint64_t random) {
    const std::chrono::nanoseconds longest = std::clamp<std::chrono::nanoseconds>(
        waiters.load() * k_pause_for_each_waiter, k_shortest_bound, FileLock::k_longest_pause);
    pause_ = std::clamp(2 * pause_, longest / 8, longest);
    const auto half = static_cast<std::uint64_t>(pause_.count() / 2);
    const TimePoint at = now + std::chrono::nanoseconds(half + random % half);
    const std::chrono::nanoseconds tick = longest / 16;
    return at + (tick - at.time_since_epoch() % tick);
  }

 private:
  std::chrono::nanoseconds pause_{0};
};

}  // namespace

Task<FileLock> FileLock::acquire(File file, Mode mode, TimePoint deadline) {
  Executor* const executor = co_await current_executor();
  Environment& environment = executor->environment();
  std::optional<Waiter> waiter;
  while (true) {
    Operation operation;
    operation.kind = Operation::Kind::lock;
    operation.fd = file.native_handle();
    operation.flags = (mode == Mode::shared ? LOCK_SH : LOCK_EX) | LOCK_NB;
    const std::int64_t result = co_await detail::perform(operation);
    if (result != -EWOULDBLOCK) {
      detail::check(result, "flock");
      co_return FileLock(std::move(file));
    }
    const TimePoint now = environment.now();
    if (now >= deadline) detail::check(-ETIMEDOUT, "flock");
    if (!waiter) waiter.emplace();
    co_await sleep_for(std::min(waiter->next_try(now, environment.random()), deadline) - now);
  }
}

Task<FileLock> FileLock::open(Directory& directory, const char* name, Directory::Open how,
                              TimePoint deadline, Mode mode) {
  while (true) {
    File file = co_await directory.open_file(name, how);
    FileLock lock = co_await acquire(std::move(file), mode, deadline);
    const FileStatus opened = co_await lock.file().status();
    const std::optional<FileStatus> named = co_await directory.status(name);
    if (named && named->same_file(opened)) co_return lock;
    co_await lock.close();
  }
}

}  // namespace tidemark
