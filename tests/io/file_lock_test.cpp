#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <functional>
#include <semaphore>
#include <string>
#include <sys/file.h>
#include <sys/resource.h>
#include <thread>
#include <unistd.h>
#include <vector>

#include <tidemark/engine/scope.hpp>
#include <tidemark/engine/sync_wait.hpp>
#include <tidemark/io/file_lock.hpp>

#include "catch.hpp"
#include "child_process.hpp"
#include "fault_driver.hpp"
#include "file_tools.hpp"
#include "loop_filesystem.hpp"
#include "temporary_folder.hpp"

using namespace tidemark;
using namespace tidemark::test;
using namespace std::chrono_literals;
namespace fs = std::filesystem;
using Kind = Operation::Kind;
using Mode = FileLock::Mode;
using Open = Directory::Open;

namespace {

constexpr TimePoint k_never = TimePoint::max();

/// Whether somebody's lock keeps `how` off the file, asked through a description of its own.
bool is_locked(const fs::path& path, int how = LOCK_EX) {
  const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (fd < 0) throw std::system_error(errno, std::generic_category(), path.string());
  const bool locked = ::flock(fd, how | LOCK_NB) != 0;
  ::close(fd);
  return locked;
}

/// A file that another process may hold. Made before the engine, because it forks.
struct HeldFile {
  explicit HeldFile(int how = LOCK_EX) : holder(folder / "file", how) {}
  TemporaryFolder folder;
  LockHolder holder;
};

struct LockFixture : FaultFixture {
  explicit LockFixture(const TemporaryFolder& folder)
      : path(folder / "file"),
        directory(sync_wait(executor, Directory::open(folder.path(), false))) {}

  File open() { return sync_wait(executor, directory.open_file("file", Open::always)); }
  FileLock acquire(Mode mode = Mode::exclusive) {
    return sync_wait(executor, FileLock::acquire(open(), mode, k_never));
  }
  std::error_code try_acquire(Mode mode = Mode::exclusive, TimePoint deadline = TimePoint::min()) {
    return error_of(executor, FileLock::acquire(open(), mode, deadline));
  }
  /// Calls `action` on the executor's thread, once, at the third try to take the lock.
  void at_third_try(const std::function<void()>& action) {
    environment.on_submit([this, action](const Operation& operation, std::uint64_t) {
      if (operation.kind == Kind::lock && environment.count(Kind::lock) == 3) action();
      return Fault::none();
    });
  }

  fs::path path;
  Directory directory;
};

struct FreeFolder {
  TemporaryFolder folder;
};
struct FreeLockFixture : FreeFolder, LockFixture {
  FreeLockFixture() : LockFixture(folder) {}
};

/// The state of a process or thread in /proc: R, S, D (in the kernel), Z, ...; 0 when it is gone.
char process_state(const fs::path& in_proc) {
  std::ifstream file(in_proc / "stat");
  std::string line;
  std::getline(file, line);
  const std::size_t name_end = line.rfind(')');
  return name_end == std::string::npos ? '\0' : line[name_end + 2];
}

bool has_thread_in_kernel(pid_t pid) {
  std::error_code gone;
  for (const auto& task : fs::directory_iterator("/proc/" + std::to_string(pid) + "/task", gone)) {
    if (process_state(task.path()) == 'D') return true;
  }
  return false;
}

}  // namespace

TEST_CASE_METHOD(FreeLockFixture, "one holds a lock exclusively, or several share it") {
  {
    const FileLock lock = acquire();
    CHECK(lock.owns_lock());
    CHECK(is_locked(path, LOCK_SH));
    CHECK(try_acquire() == std::errc::timed_out);
    CHECK(try_acquire(Mode::shared) == std::errc::timed_out);
  }
  {
    const FileLock one = acquire(Mode::shared);
    const FileLock two = acquire(Mode::shared);
    CHECK_FALSE(is_locked(path, LOCK_SH));
    CHECK(is_locked(path, LOCK_EX));
    CHECK(try_acquire() == std::errc::timed_out);
  }
  CHECK_FALSE(try_acquire());
}

TEST_CASE_METHOD(FreeLockFixture, "a lock is freed by release, close and destruction, once") {
  FileLock lock = acquire();
  lock.release();
  CHECK_FALSE(lock.owns_lock());
  CHECK_FALSE(is_locked(path));
  lock.release();

  lock = acquire();
  CHECK_FALSE(error_of(executor, lock.close()));
  CHECK_FALSE(lock.owns_lock());
  CHECK_FALSE(is_locked(path));

  lock = acquire();
  {
    const FileLock moved = std::move(lock);
    CHECK(moved.owns_lock());
    CHECK_FALSE(lock.owns_lock());  // NOLINT: what was moved from owns nothing.
    CHECK(is_locked(path));
  }
  CHECK_FALSE(is_locked(path));
  CHECK_FALSE(FileLock().owns_lock());
}

TEST_CASE_METHOD(FreeLockFixture, "a lock is held across awaits") {
  environment.on_submit([this](const Operation& operation, std::uint64_t) {
    if (operation.kind == Kind::write || operation.kind == Kind::sync) CHECK(is_locked(path));
    return Fault::none();
  });
  FileLock lock = acquire();
  CHECK_FALSE(error_of(executor, lock.file().write_at(0, as_bytes("hello"))));
  CHECK_FALSE(error_of(executor, lock.file().sync_data()));
  CHECK(environment.count(Kind::sync) == 1);
  lock.release();
  CHECK(contents(path) == "hello");
}

TEST_CASE_METHOD(FreeLockFixture, "A6: a release ends the lock, also where a copy is left") {
  FileLock lock = acquire();
  // As a request of the ring has one that lets its file go after its completion was seen.
  const int copy = ::dup(lock.file().native_handle());
  CHECK(is_locked(path));
  SECTION("at once") {
    lock.release();
  }
  SECTION("on a worker thread") {
    CHECK_FALSE(error_of(executor, lock.close()));
  }
  CHECK_FALSE(is_locked(path));
  ::close(copy);
}

TEST_CASE("a deadline ends the wait for another process, after one try at least") {
  HeldFile held;
  LockFixture fixture(held.folder);
  const std::size_t before = open_descriptors();
  fixture.environment.on_submit(nullptr);
  CHECK(fixture.try_acquire(Mode::exclusive, TimePoint::min()) == std::errc::timed_out);
  CHECK(fixture.try_acquire(Mode::shared, fixture.environment.now()) == std::errc::timed_out);
  CHECK(fixture.environment.count(Kind::lock) == 2);

  fixture.environment.on_submit(nullptr);
  const TimePoint deadline = fixture.environment.now() + 300ms;
  CHECK(fixture.try_acquire(Mode::exclusive, deadline) == std::errc::timed_out);
  CHECK(fixture.environment.now() >= deadline);
  // From 0.6 ms, doubling up to 5 ms, each pause at least half of that, and the deadline itself.
  CHECK(fixture.environment.count(Kind::lock) >= 3);
  CHECK(fixture.environment.count(Kind::lock) <= 124);
  CHECK(open_descriptors() == before);
  held.holder.release();
  CHECK_FALSE(fixture.try_acquire());
}

TEST_CASE("a stop ends the wait for another process") {
  HeldFile held;
  LockFixture fixture(held.folder);
  const std::size_t before = open_descriptors();
  std::stop_source source;
  fixture.at_third_try([&] { source.request_stop(); });
  const auto acquire = [&] {
    return error_of(
        fixture.executor,
        with_stop(FileLock::acquire(fixture.open(), Mode::exclusive, k_never), source.get_token()));
  };
  CHECK(acquire() == std::errc::operation_canceled);
  CHECK(fixture.environment.count(Kind::lock) == 3);
  CHECK(open_descriptors() == before);
  held.holder.release();
  CHECK(acquire() == std::errc::operation_canceled);
  CHECK_FALSE(is_locked(fixture.path));
}

TEST_CASE("a waiter gets the lock once the other process lets go") {
  const int how = GENERATE(LOCK_EX, LOCK_SH);
  HeldFile held(how);
  LockFixture fixture(held.folder);
  fixture.at_third_try([&] { held.holder.release(); });
  const FileLock lock = fixture.acquire();
  CHECK(fixture.environment.count(Kind::lock) >= 3);
  CHECK(is_locked(fixture.path));
}

TEST_CASE("what goes wrong with a lock is thrown") {
  const TemporaryFolder folder;
  LockFixture fixture(folder);
  const std::size_t before = open_descriptors();
  fixture.environment.on_submit([](const Operation& operation, std::uint64_t) {
    return operation.kind == Kind::lock ? Fault::answer(-ENOLCK) : Fault::none();
  });
  CHECK(fixture.try_acquire(Mode::exclusive, k_never) == std::errc::no_lock_available);
  CHECK(open_descriptors() == before);
}

TEST_CASE("a thousand tasks wait for another process and hold up nothing") {
  constexpr int k_waiters = 1000;
  rlimit files{};
  ::getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = std::min<rlim_t>(files.rlim_max, 4096);
  ::setrlimit(RLIMIT_NOFILE, &files);

  HeldFile held;
  LockFixture fixture(held.folder);
  std::counting_semaphore waiting(0);
  fixture.environment.on_submit([&](const Operation& operation, std::uint64_t) {
    if (operation.kind == Kind::lock) waiting.release();
    return Fault::none();
  });
  struct Counts {
    int inside = 0;
    int most_inside = 0;
    std::atomic<int> served{0};  // Read while they wait.
    int stopped = 0;
  } counts;
  const auto wait = [](LockFixture& in, Counts& count) -> Task<void> {
    try {
      File file = co_await in.directory.open_file("file", Open::existing);
      FileLock lock = co_await FileLock::acquire(std::move(file), Mode::exclusive, k_never);
      count.most_inside = std::max(count.most_inside, ++count.inside);
      co_await lock.file().write_at(0, as_bytes("x"));
      --count.inside;
      ++count.served;
    } catch (const std::system_error& error) {
      if (!is_canceled(error)) throw;
      ++count.stopped;
    }
  };
  Scope scope(fixture.executor);
  for (int i = 0; i < k_waiters; ++i) scope.spawn(wait(fixture, counts));
  for (int i = 0; i < 2 * k_waiters; ++i) waiting.acquire();

  // Each kind of operation still passes, in the ring and on the workers.
  File other = sync_wait(fixture.executor, fixture.directory.open_file("other", Open::always));
  CHECK_FALSE(error_of(fixture.executor, other.write_at(0, as_bytes("other"))));
  CHECK_FALSE(error_of(fixture.executor, other.truncate(2)));
  CHECK(contents(held.folder / "other") == "ot");
  CHECK(counts.served == 0);

  SECTION("each gets it in the end") {
    held.holder.release();
    sync_wait(fixture.executor, scope.join());
    CHECK(counts.served == k_waiters);
    CHECK(counts.most_inside == 1);
  }
  SECTION("all stop") {
    scope.request_stop();
    sync_wait(fixture.executor, scope.join());
    CHECK(counts.stopped == k_waiters);
    CHECK(is_locked(fixture.path));
  }
}

TEST_CASE("a lock by name is on the file that has the name") {
  HeldFile held;
  write_contents(held.folder / "file", "old");
  LockFixture fixture(held.folder);
  const auto lock = [&](Open how) {
    return sync_wait(fixture.executor, FileLock::open(fixture.directory, "file", how, k_never));
  };
  const auto error = [&](Open how) {
    return error_of(fixture.executor, FileLock::open(fixture.directory, "file", how, k_never));
  };
  SECTION("it was there all the time") {
    fixture.at_third_try([&] { held.holder.release(); });
    const FileLock got = lock(Open::existing);
    CHECK(is_locked(fixture.path));
    CHECK(contents(fixture.path) == "old");
  }
  SECTION("it was replaced under the waiter") {
    fixture.at_third_try([&] {
      write_contents(held.folder / "new", "new");
      fs::rename(held.folder / "new", fixture.path);
      held.holder.release();
    });
    const FileLock got = lock(Open::existing);
    CHECK(is_locked(fixture.path));
    CHECK(contents(fixture.path) == "new");
    CHECK(fixture.environment.count(Kind::open) == 2);
  }
  SECTION("it was removed under the waiter") {
    const std::size_t before = open_descriptors() - 1;  // Less the holder's pipe.
    fixture.at_third_try([&] {
      fs::remove(fixture.path);
      held.holder.release();
    });
    CHECK(error(Open::existing) == std::errc::no_such_file_or_directory);
    CHECK_FALSE(fs::exists(fixture.path));
    CHECK(open_descriptors() == before);
  }
  SECTION("it was removed under one who makes what is missing") {
    fixture.at_third_try([&] {
      fs::remove(fixture.path);
      held.holder.release();
    });
    const FileLock got = lock(Open::always);
    CHECK(is_locked(fixture.path));
    CHECK(contents(fixture.path).empty());
  }
  SECTION("a deadline and a stop hold for the whole") {
    CHECK(error_of(fixture.executor, FileLock::open(fixture.directory, "file", Open::existing,
                                                    TimePoint::min())) == std::errc::timed_out);
    std::stop_source source;
    fixture.at_third_try([&] { source.request_stop(); });
    CHECK(error_of(fixture.executor,
                   with_stop(FileLock::open(fixture.directory, "file", Open::existing, k_never),
                             source.get_token())) == std::errc::operation_canceled);
  }
}

TEST_CASE_METHOD(FreeLockFixture, "a lock by name may make the file, and may be shared") {
  const auto open = [&](const char* name, Open how, Mode mode) {
    return FileLock::open(directory, name, how, TimePoint::min(), mode);
  };
  const FileLock made = sync_wait(executor, open("new", Open::exclusive, Mode::exclusive));
  CHECK(is_locked(folder / "new"));
  CHECK(error_of(executor, open("new", Open::exclusive, Mode::exclusive)) ==
        std::errc::file_exists);
  CHECK(error_of(executor, open("new", Open::existing, Mode::shared)) == std::errc::timed_out);
  CHECK(error_of(executor, open("none", Open::existing, Mode::shared)) ==
        std::errc::no_such_file_or_directory);
  CHECK(error_of(executor, open("../x", Open::always, Mode::shared)) ==
        std::errc::invalid_argument);
  const FileLock one = sync_wait(executor, open("file", Open::always, Mode::shared));
  const FileLock two = sync_wait(executor, open("file", Open::existing, Mode::shared));
  CHECK(is_locked(path, LOCK_EX));
  CHECK_FALSE(is_locked(path, LOCK_SH));
}

TEST_CASE("a write that is in the kernel when its process dies keeps the lock until it ended") {
  LoopFilesystem filesystem(32);
  if (!filesystem.mounted()) {
    WARN("not shown: it takes the right to mount a file system");
    return;
  }
  const fs::path path = filesystem.path() / "file";
  write_contents(path, "old");
  int ends[2];
  REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
  ChildProcess child([&] {
    FaultFixture fixture;
    Directory directory = sync_wait(fixture.executor, Directory::open(path.parent_path(), false));
    FileLock lock = sync_wait(fixture.executor,
                              FileLock::open(directory, "file", Open::existing, TimePoint::min()));
    fixture.environment.on_submit([](const Operation&, std::uint64_t) { return Fault::hold(); });
    std::thread([&] {
      fixture.environment.wait_for_held();
      if (::write(ends[1], "", 1) != 1) ::_exit(1);
      while (::access((path.parent_path().parent_path() / "frozen").c_str(), F_OK) != 0) {
        std::this_thread::yield();
      }
      fixture.environment.release();
    }).detach();
    sync_wait(fixture.executor, lock.file().write_at(0, as_bytes("new")));
    return 0;
  });
  char ignored = 0;
  REQUIRE(::read(ends[0], &ignored, 1) == 1);
  ::close(ends[0]);
  ::close(ends[1]);
  filesystem.freeze();
  write_contents(path.parent_path().parent_path() / "frozen", "");
  while (!has_thread_in_kernel(child.pid())) std::this_thread::yield();
  CHECK(is_locked(path));

  REQUIRE(::kill(child.pid(), SIGKILL) == 0);
  while (process_state("/proc/" + std::to_string(child.pid())) != 'Z') std::this_thread::yield();
  CHECK(is_locked(path));
  filesystem.thaw();
  CHECK(child.wait() == -SIGKILL);
  while (is_locked(path)) std::this_thread::yield();  // The kernel takes a ring down later.
  const std::string now = contents(path);
  CHECK((now == "old" || now == "new"));
}
