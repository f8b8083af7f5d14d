// Drivers alone, on the test's own thread, without an executor.

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <deque>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <future>
#include <linux/openat2.h>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <thread>
#include <unistd.h>
#include <vector>

#include <tidemark/engine/driver.hpp>

#include "../catch.hpp"
#include "../child_process.hpp"
#include "../driver_fixture.hpp"
#include "../sanitizers.hpp"
#include "../temporary_folder.hpp"

using namespace std::chrono_literals;

namespace tidemark::test {
namespace {

/// An operation that counts its completions.
struct Once : Operation {
  explicit Once(const Operation& operation) : Operation(operation) {
    complete = [](Operation& done) noexcept { ++static_cast<Once&>(done).completions; };
  }
  int completions = 0;
};

struct DriverFixture {
  explicit DriverFixture(unsigned queue_entries = 8, unsigned worker_threads = 4)
      : driver(Environment::real().make_driver({driver_kind(), queue_entries, worker_threads})) {}
  ~DriverFixture() { ::close(folder_fd); }

  /// Runs one operation to its end and gives its result.
  std::int64_t run(const Operation& operation) {
    Once once(operation);
    if (driver->submit(once)) return once.result;
    while (once.completions == 0) driver->wait(std::nullopt);
    return once.result;
  }

  std::unique_ptr<Driver> driver;
  TemporaryFolder folder;
  int folder_fd = ::open(folder.path().c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
};

Operation at(Operation::Kind kind, int fd) {
  Operation operation;
  operation.kind = kind;
  operation.fd = fd;
  return operation;
}

Operation named(Operation::Kind kind, int folder_fd, const char* path) {
  Operation operation = at(kind, folder_fd);
  operation.path = path;
  return operation;
}

Operation open_at(int folder_fd, const char* path, int flags) {
  Operation operation = named(Operation::Kind::open, folder_fd, path);
  operation.how.flags = static_cast<std::uint64_t>(flags | O_CLOEXEC);
  operation.how.mode = (flags & O_CREAT) != 0 ? 0640 : 0;
  operation.how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS;
  return operation;
}

Operation write_at(int fd, std::string_view text, std::uint64_t offset) {
  Operation operation = at(Operation::Kind::write, fd);
  operation.const_buffer = text.data();
  operation.length = text.size();
  operation.offset = offset;
  return operation;
}

Operation read_at(int fd, std::string& text, std::uint64_t offset) {
  Operation operation = at(Operation::Kind::read, fd);
  operation.buffer = text.data();
  operation.length = text.size();
  operation.offset = offset;
  return operation;
}

int open_file(DriverFixture& fixture, const char* name) {
  const std::int64_t fd = fixture.run(open_at(fixture.folder_fd, name, O_RDWR | O_CREAT));
  REQUIRE(fd >= 0);
  return static_cast<int>(fd);
}

TEST_CASE("reading, writing and syncing", "[driver]") {
  DriverFixture fixture;
  const int fd = open_file(fixture, "data");
  CHECK(fixture.run(write_at(fd, "hello", 3)) == 5);
  Operation synchronous = write_at(fd, "HE", 3);
  synchronous.flags = RWF_DSYNC;
  CHECK(fixture.run(synchronous) == 2);
  std::string text(16, '?');
  CHECK(fixture.run(read_at(fd, text, 0)) == 8);
  CHECK(text == std::string("\0\0\0HEllo", 8) + "????????");
  CHECK(fixture.run(read_at(fd, text, 8)) == 0);
  CHECK(fixture.run(write_at(fd, "x", std::uint64_t{0} - 1)) == -EINVAL);
  CHECK(fixture.run(read_at(fd, text, std::uint64_t{0} - 1)) == -EINVAL);
  Operation sync = at(Operation::Kind::sync, fd);
  CHECK(fixture.run(sync) == 0);
  sync.flags = 1;
  CHECK(fixture.run(sync) == 0);
  CHECK(fixture.run(at(Operation::Kind::sync_filesystem, fd)) == 0);
  CHECK(fixture.run(at(Operation::Kind::close, fd)) == 0);
  CHECK(fixture.run(at(Operation::Kind::close, fd)) == -EBADF);
  CHECK(fixture.run(read_at(fd, text, 0)) == -EBADF);
  CHECK(fixture.run(write_at(fd, text, 0)) == -EBADF);
  CHECK(fixture.run(at(Operation::Kind::sync, fd)) == -EBADF);
}

TEST_CASE("what is known of a file, and its size", "[driver]") {
  DriverFixture fixture;
  const int fd = open_file(fixture, "data");
  struct statx known {};
  Operation stat = named(Operation::Kind::stat, fd, "");
  stat.stat = &known;
  Operation truncate = at(Operation::Kind::truncate, fd);
  truncate.length = 12'345;
  CHECK(fixture.run(truncate) == 0);
  CHECK(fixture.run(stat) == 0);
  CHECK(known.stx_size == 12'345);
  Operation allocate = at(Operation::Kind::allocate, fd);
  allocate.offset = 4096;
  allocate.length = std::uint64_t{1} << 20;
  CHECK(fixture.run(allocate) == 0);
  CHECK(fixture.run(stat) == 0);
  CHECK(known.stx_size == 12'345);  // Room is kept, the size is not changed.
  CHECK(known.stx_blocks * 512 >= std::uint64_t{1} << 20);

  Operation change_mode = at(Operation::Kind::change_mode, fd);
  change_mode.mode = 0600;
  CHECK(fixture.run(change_mode) == 0);
  std::filesystem::create_symlink("data", fixture.folder / "link");
  Operation stat_name = named(Operation::Kind::stat, fixture.folder_fd, "data");
  stat_name.stat = &known;
  CHECK(fixture.run(stat_name) == 0);
  CHECK((known.stx_mode & 07777) == 0600);
  stat_name.path = "link";
  CHECK(fixture.run(stat_name) == 0);
  CHECK(S_ISLNK(known.stx_mode));
  stat_name.path = "missing";
  CHECK(fixture.run(stat_name) == -ENOENT);

  struct statfs room {};
  Operation stat_filesystem = at(Operation::Kind::stat_filesystem, fd);
  stat_filesystem.filesystem = &room;
  CHECK(fixture.run(stat_filesystem) == 0);
  CHECK(room.f_bsize > 0);
  ::close(fd);
}

TEST_CASE("names in a folder", "[driver]") {
  DriverFixture fixture;
  const int folder = fixture.folder_fd;
  ::close(open_file(fixture, "a"));
  CHECK(fixture.run(open_at(folder, "a", O_RDWR | O_CREAT | O_EXCL)) == -EEXIST);
  CHECK(fixture.run(open_at(folder, "missing", O_RDONLY)) == -ENOENT);
  std::filesystem::create_symlink("a", fixture.folder / "link");
  CHECK(fixture.run(open_at(folder, "link", O_RDONLY)) == -ELOOP);
  CHECK(fixture.run(open_at(folder, "../a", O_RDONLY)) == -EXDEV);

  Operation link = named(Operation::Kind::link, folder, "a");
  link.other_fd = folder;
  link.other_path = "b";
  CHECK(fixture.run(link) == 0);
  CHECK(fixture.run(link) == -EEXIST);
  Operation rename = named(Operation::Kind::rename, folder, "b");
  rename.other_fd = folder;
  rename.other_path = "c";
  CHECK(fixture.run(rename) == 0);
  CHECK(fixture.run(rename) == -ENOENT);
  CHECK(fixture.run(named(Operation::Kind::unlink, folder, "a")) == 0);
  CHECK(fixture.run(named(Operation::Kind::unlink, folder, "a")) == -ENOENT);
  Operation make_directory = named(Operation::Kind::make_directory, folder, "d");
  make_directory.mode = 0755;
  CHECK(fixture.run(make_directory) == 0);
  CHECK(fixture.run(make_directory) == -EEXIST);
  CHECK(fixture.run(named(Operation::Kind::unlink, folder, "d")) == -EISDIR);

  std::vector<std::string> names;
  Operation list = at(Operation::Kind::list_directory, folder);
  list.names = &names;
  CHECK(fixture.run(list) == 0);
  std::sort(names.begin(), names.end());
  CHECK(names == std::vector<std::string>{"c", "d", "link"});
}

TEST_CASE("copying a range and locking", "[driver]") {
  DriverFixture fixture;
  const int from = open_file(fixture, "from");
  const int to = open_file(fixture, "to");
  const int again = open_file(fixture, "from");
  CHECK(fixture.run(write_at(from, "0123456789", 0)) == 10);
  Operation copy = at(Operation::Kind::copy_range, from);
  copy.offset = 2;
  copy.other_fd = to;
  copy.other_offset = 1;
  copy.length = 5;
  CHECK(fixture.run(copy) == 5);
  std::string text(8, '?');
  CHECK(fixture.run(read_at(to, text, 0)) == 6);
  CHECK(text.substr(1, 5) == "23456");

  Operation lock = at(Operation::Kind::lock, from);
  lock.flags = LOCK_EX | LOCK_NB;
  CHECK(fixture.run(lock) == 0);
  Operation other = at(Operation::Kind::lock, again);
  other.flags = LOCK_EX | LOCK_NB;
  CHECK(fixture.run(other) == -EWOULDBLOCK);
  lock.flags = LOCK_UN;
  CHECK(fixture.run(lock) == 0);
  CHECK(fixture.run(other) == 0);
  for (const int fd : {from, to, again}) ::close(fd);
}

/// One of the operations that 10,000 are made of, on one small file.
Operation random_operation(std::mt19937& random, int fd, std::string& text) {
  switch (random() % 6) {
    case 0: {
      Operation truncate = at(Operation::Kind::truncate, fd);  // For the pool, in either driver.
      truncate.length = 1000;
      return truncate;
    }
    case 1:
      return at(Operation::Kind::sync, fd);
    case 2:
    case 3:
      return read_at(fd, text, random() % 1000);
    default:
      return write_at(fd, text, random() % 1000);
  }
}

/// Submits `count` operations, at most `window` unfinished, cancels about one in `cancel_one_in`
/// (0: none) some time after, and checks that each completed once.
void run_many(DriverFixture& fixture, std::size_t count, std::size_t window,
              unsigned cancel_one_in) {
  const int fd = open_file(fixture, "data");
  std::mt19937 random(20'240'817);
  std::vector<std::string> texts(count, std::string(64, 'x'));
  std::deque<Once> operations;
  std::vector<Once*> to_cancel;
  std::size_t at_once = 0;
  const auto unfinished = [&] {
    return std::count_if(operations.begin(), operations.end(),
                         [](const Once& each) { return each.completions == 0; });
  };
  for (std::size_t i = 0; i < count; ++i) {
    Once& operation = operations.emplace_back(random_operation(random, fd, texts[i]));
    if (fixture.driver->submit(operation)) ++operation.completions;
    if (cancel_one_in != 0 && random() % cancel_one_in == 0) to_cancel.push_back(&operation);
    if (++at_once < window) continue;
    while (!to_cancel.empty() && random() % 8 != 0) {
      Once* const victim = to_cancel.back();
      to_cancel.pop_back();
      if (victim->completions == 0) fixture.driver->cancel(*victim);
    }
    fixture.driver->wait(TimePoint::min());
    at_once = static_cast<std::size_t>(unfinished());
    while (at_once >= window) {
      fixture.driver->wait(std::nullopt);
      at_once = static_cast<std::size_t>(unfinished());
    }
  }
  while (unfinished() != 0) fixture.driver->wait(std::nullopt);
  fixture.driver->wait(TimePoint::min());  // Nothing may come twice.

  std::size_t canceled = 0;
  for (const Once& operation : operations) {
    REQUIRE(operation.completions == 1);
    if (operation.result == -ECANCELED || operation.result == -EINTR) {
      ++canceled;
    } else {
      REQUIRE(operation.result >= 0);
    }
  }
  CHECK(fixture.driver->stats().submitted == fixture.driver->stats().completed);
  if (cancel_one_in == 0) CHECK(canceled == 0);
  if (cancel_one_in == 1) CHECK(canceled > 0);
  ::close(fd);
}

TEST_CASE("10,000 operations through a queue of 8 complete once each", "[driver]") {
  DriverFixture fixture(8, 2);
  SECTION("all at once") {
    run_many(fixture, 10'000, 10'000, 0);
  }
  SECTION("a few at a time") {
    run_many(fixture, 10'000, 50, 0);
  }
  SECTION("some cancelled") {
    run_many(fixture, 10'000, 200, 3);
  }
  SECTION("nearly all cancelled") {
    run_many(fixture, 10'000, 100, 1);
  }
}

/// Operations that go on until `release`: as many as fill the queue of 8, or the one thread.
class Blockers {
 public:
  explicit Blockers(DriverFixture& fixture) : fixture_(fixture) {
    if (fixture.driver->kind() == DriverKind::uring) {
      REQUIRE(::pipe2(ends_.data(), O_CLOEXEC) == 0);
      for (int i = 0; i < 8; ++i) operations_.emplace_back(read_at(ends_[0], text_, 0));
    } else {
      for (int& end : ends_) end = open_file(fixture, "locked");
      REQUIRE(::flock(ends_[0], LOCK_EX) == 0);
      operations_.emplace_back(at(Operation::Kind::lock, ends_[1])).flags = LOCK_EX;
    }
    for (Once& each : operations_) REQUIRE_FALSE(fixture.driver->submit(each));
    fixture.driver->wait(TimePoint::min());
  }
  ~Blockers() {
    for (const int end : ends_) ::close(end);
  }

  std::deque<Once>& operations() { return operations_; }

  void release() {
    if (fixture_.driver->kind() == DriverKind::uring) {
      CHECK(::write(ends_[1], "12345678", 8) == 8);
    } else {
      CHECK(::flock(ends_[0], LOCK_UN) == 0);
    }
    for (Once& each : operations_) {
      while (each.completions == 0) fixture_.driver->wait(std::nullopt);
    }
  }

 private:
  DriverFixture& fixture_;
  std::array<int, 2> ends_{-1, -1};
  std::string text_{'?'};
  std::deque<Once> operations_;
};

TEST_CASE("what waits for room or for a thread is cancelled without an effect", "[driver]") {
  DriverFixture fixture(8, 1);
  const int fd = open_file(fixture, "data");
  Blockers blockers(fixture);
  Once write(write_at(fd, "never", 0));
  REQUIRE_FALSE(fixture.driver->submit(write));
  fixture.driver->wait(TimePoint::min());
  fixture.driver->cancel(write);
  while (write.completions == 0) fixture.driver->wait(std::nullopt);
  CHECK(write.result == -ECANCELED);
  CHECK(std::filesystem::file_size(fixture.folder / "data") == 0);

  blockers.release();
  for (const Once& each : blockers.operations()) {
    CHECK(each.completions == 1);
    CHECK(each.result >= 0);
  }
  ::close(fd);
}

TEST_CASE("an operation in the ring is cancelled for good", "[driver][uring]") {
  DriverFixture fixture;
  if (fixture.driver->kind() != DriverKind::uring) return;  // Threads cannot be called back.
  Blockers blockers(fixture);
  for (Once& each : blockers.operations()) {
    REQUIRE(each.completions == 0);
    fixture.driver->cancel(each);
  }
  for (Once& each : blockers.operations()) {
    while (each.completions == 0) fixture.driver->wait(std::nullopt);
    CHECK(each.result == -ECANCELED);
  }
  fixture.driver->wait(TimePoint::min());
  for (Once& each : blockers.operations()) CHECK(each.completions == 1);
}

/// Makes a sync, which needs a thread of the kernel's or of the pool's, where none can be started.
std::int64_t sync_at_task_limit(bool pool_has_thread) {
  ::setresuid(65534, 65534, 65534);  // Root has no such limit.
  DriverFixture fixture;
  const int fd = static_cast<int>(::memfd_create("data", MFD_CLOEXEC));
  if (pool_has_thread) fixture.run(at(Operation::Kind::truncate, fd));
  const rlimit one{1, 1};
  ::setrlimit(RLIMIT_NPROC, &one);
  return fixture.run(at(Operation::Kind::sync, fd));
}

TEST_CASE("at the limit of tasks the pool's threads go on", "[driver]") {
  if (k_thread_sanitizer) return;  // It allows no thread in a child of a process that had any.
  CHECK(ChildProcess([] { return static_cast<int>(-sync_at_task_limit(true)); }).wait() == 0);
}

TEST_CASE("what no thread is left for fails, and is not cancelled", "[driver][uring]") {
  if (k_thread_sanitizer) return;                    // As above.
  if (driver_kind() == DriverKind::threads) return;  // They refuse it in `submit`.
  const int error =
      ChildProcess([] { return static_cast<int>(-sync_at_task_limit(false)); }).wait();
  CHECK((error == ENOMEM || error == 0));  // 0: where the limit does not hold.
}

TEST_CASE("wake ends the present or the next wait, of any thread", "[driver]") {
  DriverFixture fixture;
  fixture.driver->wake();
  fixture.driver->wait(std::nullopt);
  for (int i = 0; i < 1000; ++i) {
    const std::jthread other([&] { fixture.driver->wake(); });
    fixture.driver->wait(std::nullopt);
  }
}

TEST_CASE("a wait ends at its deadline, not before", "[driver]") {
  DriverFixture fixture;
  fixture.driver->wait(TimePoint::min());
  for (const auto pause : {1us, 100us, 3000us}) {
    const TimePoint deadline = Environment::real().now() + pause;
    fixture.driver->wait(deadline);
    CHECK(Environment::real().now() >= deadline);
  }
}

std::set<std::string> descriptors() {
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fdinfo")) {
    names.insert(entry.path().filename());
  }
  return names;
}

bool closes_on_exec(const std::string& descriptor) {
  std::ifstream info("/proc/self/fdinfo/" + descriptor);
  std::string word;
  while (info >> word) {
    if (word != "flags:") continue;
    info >> word;
    return (std::stoul(word, nullptr, 8) & O_CLOEXEC) != 0;
  }
  return true;  // The folder's own descriptor, which is closed by now.
}

TEST_CASE("a driver's descriptors close on exec", "[driver]") {
  const std::set<std::string> before = descriptors();
  DriverFixture fixture;
  const int fd = open_file(fixture, "data");
  int fresh = 0;
  for (const std::string& descriptor : descriptors()) {
    if (before.count(descriptor) != 0) continue;
    CAPTURE(descriptor);
    CHECK(closes_on_exec(descriptor));
    ++fresh;
  }
  CHECK(fresh >= 3);  // The eventfd, the folder and the file, and the ring.
  ::close(fd);
}

}  // namespace
}  // namespace tidemark::test
