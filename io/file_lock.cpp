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

constexpr std::chrono::nanoseconds k_first_pause = 500us;
// All waiters of the process together try about this often, so that few of them are quick and
// many of them cheap.
constexpr std::chrono::nanoseconds k_pause_for_each_waiter = 250us;
constexpr std::chrono::nanoseconds k_shortest_bound = 5ms;

std::atomic<std::int64_t> waiters{0};

struct Waiter {
  Waiter() { ++waiters; }
  ~Waiter() { --waiters; }
  Waiter(const Waiter&) = delete;
  Waiter& operator=(const Waiter&) = delete;

  static std::chrono::nanoseconds longest_pause() {
    return std::clamp<std::chrono::nanoseconds>(waiters.load() * k_pause_for_each_waiter,
                                                k_shortest_bound, FileLock::k_longest_pause);
  }
};

}  // namespace

Task<FileLock> FileLock::acquire(File file, Mode mode, TimePoint deadline) {
  Executor* const executor = co_await current_executor();
  Environment& environment = executor->environment();
  std::chrono::nanoseconds pause = k_first_pause;
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
    // Spread over half to all of the pause, so that waiters do not come in step.
    const auto half = static_cast<std::uint64_t>(pause.count() / 2);
    const std::chrono::nanoseconds spread(half + environment.random() % half);
    co_await sleep_for(std::min(spread, deadline - now));
    pause = std::min(pause * 2, Waiter::longest_pause());
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
