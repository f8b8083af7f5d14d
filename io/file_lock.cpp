#include <algorithm>
#include <cerrno>
#include <sys/file.h>

#include <tidemark/engine/perform.hpp>
#include <tidemark/engine/sleep_for.hpp>
#include <tidemark/io/file_lock.hpp>

namespace tidemark {
namespace {

using namespace std::chrono_literals;

constexpr std::chrono::nanoseconds k_first_pause = 500us;

}  // namespace

Task<FileLock> FileLock::acquire(File file, Mode mode, TimePoint deadline) {
  Executor* const executor = co_await current_executor();
  Environment& environment = executor->environment();
  std::chrono::nanoseconds pause = k_first_pause;
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
    // Spread over half to all of the pause, so that waiters do not come in step.
    const auto half = static_cast<std::uint64_t>(pause.count() / 2);
    const std::chrono::nanoseconds spread(half + environment.random() % half);
    co_await sleep_for(std::min(spread, deadline - now));
    pause = std::min<std::chrono::nanoseconds>(pause * 2, k_longest_pause);
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
