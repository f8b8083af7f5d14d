#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdlib>
#include <fcntl.h>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <thread>
#include <unistd.h>
#include <utility>
#include <vector>

#include <tidemark/engine/sync_wait.hpp>
#include <tidemark/io/directory.hpp>
#include <tidemark/io/file.hpp>

#include "catch.hpp"
#include "child_process.hpp"
#include "fault_driver.hpp"
#include "file_tools.hpp"
#include "temporary_folder.hpp"
#include "test_bytes.hpp"

using namespace tidemark;
using namespace tidemark::test;
using Kind = Operation::Kind;
using Open = Directory::Open;

namespace {

constexpr std::size_t k_block = k_direct_alignment;
constexpr WriteMode k_modes[] = {WriteMode::cached, WriteMode::cached_stable, WriteMode::direct,
                                 WriteMode::direct_stable};

bool is_stable(WriteMode mode) {
  return mode == WriteMode::cached_stable || mode == WriteMode::direct_stable;
}
bool is_direct(WriteMode mode) {
  return mode == WriteMode::direct || mode == WriteMode::direct_stable;
}

/// Counts what File asks of the environment, and can refuse direct I/O.
struct SeamEnvironment : FaultEnvironment {
  void close_descriptor(int fd) noexcept override {
    closed.push_back(fd);
    FaultEnvironment::close_descriptor(fd);
  }
  void set_direct(int fd, bool direct) override {
    if (refusal != 0) throw std::system_error(refusal, std::generic_category(), "O_DIRECT");
    switches.push_back(direct);
    FaultEnvironment::set_direct(fd, direct);
  }

  int refusal = 0;
  std::vector<bool> switches;
  std::vector<int> closed;
};

/// Memory for direct writes, filled with the bytes of a seed that belong at `position`.
class AlignedBytes {
 public:
  AlignedBytes(std::uint64_t seed, std::uint64_t position, std::size_t size)
      : memory_(static_cast<std::byte*>(std::aligned_alloc(k_block, size)), &std::free),
        bytes_(memory_.get(), size) {
    fill_test_bytes(bytes_, seed, position);
  }
  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  std::unique_ptr<std::byte, decltype(&std::free)> memory_;
  std::span<std::byte> bytes_;
};

/// An empty file on the driver under test.
struct FileFixture : BasicFaultFixture<SeamEnvironment> {
  TemporaryFolder folder;
  Directory directory = sync_wait(executor, Directory::open(folder.path(), false));
  File file = sync_wait(executor, directory.open_file("file", Open::exclusive));

  template <class T>
  std::error_code error(Task<T> task) {
    return error_of(executor, std::move(task));
  }
  std::string text() { return contents(folder / "file"); }
  std::string read(std::uint64_t offset, std::size_t size) {
    std::string bytes(size, '?');
    bytes.resize(
        sync_wait(executor, file.read_at(offset, std::as_writable_bytes(std::span(bytes)))));
    return bytes;
  }
  /// The first byte of the file, from `position` on, that is not that of `seed`.
  std::optional<std::size_t> wrong_byte(std::uint64_t seed, std::uint64_t position = 0) {
    const std::string all = text();
    return first_wrong_byte(as_bytes(all).subspan(position), seed, position);
  }
  bool direct_is_set() { return (::fcntl(file.native_handle(), F_GETFL) & O_DIRECT) != 0; }
};

/// Answers the first `times` operations of `kind` with `result`.
FaultEnvironment::Choose first_of(Kind kind, int times, std::int64_t result) {
  return [=](const Operation& operation, std::uint64_t) mutable {
    const bool meant = operation.kind == kind && times-- > 0;
    return meant ? Fault::answer(result) : Fault::none();
  };
}

}  // namespace

TEST_CASE_METHOD(FileFixture, "bytes are read back from where they were written") {
  CHECK_FALSE(error(file.write_at(0, as_bytes("hello"))));
  CHECK_FALSE(error(file.write_at(7, as_bytes("world"))));
  CHECK(text() == std::string("hello\0\0world", 12));
  CHECK(read(7, 5) == "world");
  CHECK(read(10, 100) == "ld");
  CHECK(read(12, 1).empty());
  CHECK(read(1000, 1).empty());
  CHECK(read(0, 0).empty());
  environment.on_submit(nullptr);
  CHECK_FALSE(error(file.write_at(0, {})));
  CHECK(environment.count() == 0);
  CHECK(sync_wait(executor, file.status()).size == 12);
}

TEST_CASE_METHOD(FileFixture, "bytes beyond 4 GiB are found again") {
  constexpr std::uint64_t k_far = (std::uint64_t{1} << 32) + 5;
  CHECK_FALSE(error(file.write_at(k_far, as_bytes("far"))));
  CHECK(read(k_far, 9) == "far");
  CHECK(sync_wait(executor, file.status()).size == k_far + 3);
}

TEST_CASE_METHOD(FileFixture, "there are no offsets beyond those of the system") {
  CHECK_FALSE(error(file.write_at(0, as_bytes("hello"))));
  std::string bytes(1, '?');
  // The last is the kernel's word for its own position.
  for (const std::uint64_t offset : {std::uint64_t{1} << 63, std::uint64_t{0} - 1}) {
    CAPTURE(offset);
    CHECK(error(file.write_at(offset, as_bytes("x"))) == std::errc::invalid_argument);
    const auto buffer = std::as_writable_bytes(std::span(bytes));
    CHECK(error(file.read_some_at(offset, buffer)) == std::errc::invalid_argument);
    CHECK(error(file.copy_range_to(0, file, offset, 1)) == std::errc::invalid_argument);
  }
  CHECK(text() == "hello");
}

TEST_CASE_METHOD(FileFixture, "each way of writing asks the kernel for what it promises") {
  const WriteMode mode = GENERATE(from_range(std::begin(k_modes), std::end(k_modes)));
  const AlignedBytes data(1, 0, 4 * k_block);
  std::vector<std::uint32_t> flags;
  std::vector<bool> direct;
  environment.on_submit([&](const Operation& operation, std::uint64_t) {
    if (operation.kind == Kind::write) {
      flags.push_back(operation.flags);
      direct.push_back(direct_is_set());
    }
    return Fault::none();
  });
  CHECK_FALSE(error(file.write_at(0, data.bytes(), mode)));
  CHECK(flags == std::vector<std::uint32_t>{is_stable(mode) ? unsigned{RWF_DSYNC} : 0});
  CHECK(direct == std::vector<bool>{is_direct(mode)});
  CHECK(text().size() == data.bytes().size());
  CHECK_FALSE(wrong_byte(1));
}

TEST_CASE_METHOD(FileFixture, "direct and cached accesses of one file see the same bytes") {
  File other = sync_wait(executor, directory.open_file("file", Open::existing));
  std::uint64_t seed = 0;
  for (const WriteMode first : k_modes) {
    for (const WriteMode second : k_modes) {
      const AlignedBytes before(++seed, 0, 4 * k_block);
      const AlignedBytes after(++seed, k_block, 2 * k_block);
      CHECK_FALSE(error(file.write_at(0, before.bytes(), first)));
      CHECK(read(3, 5).size() == 5);  // Brings pages into the cache; not aligned.
      CHECK_FALSE(error(other.write_at(k_block, after.bytes(), second)));
      const std::string now = read(0, 5 * k_block);
      REQUIRE(now.size() == 4 * k_block);
      CHECK_FALSE(first_wrong_byte(as_bytes(now).first(k_block), seed - 1, 0));
      CHECK_FALSE(first_wrong_byte(as_bytes(now).subspan(k_block, 2 * k_block), seed, k_block));
      CHECK_FALSE(first_wrong_byte(as_bytes(now).last(k_block), seed - 1, 3 * k_block));
    }
  }
}

TEST_CASE_METHOD(FileFixture, "an unaligned start is written around a direct middle") {
  const AlignedBytes middle(1, k_block, 3 * k_block);
  const std::vector<std::byte> head = test_bytes(1, 0, k_block);
  const std::vector<std::byte> tail = test_bytes(1, 4 * k_block, 100);
  CHECK_FALSE(error(file.write_at(0, head, WriteMode::cached)));
  CHECK_FALSE(error(file.write_at(k_block, middle.bytes(), WriteMode::direct)));
  CHECK_FALSE(error(file.write_at(4 * k_block, tail, WriteMode::cached)));
  CHECK_FALSE(error(file.sync_data()));
  CHECK(text().size() == 4 * k_block + 100);
  CHECK_FALSE(wrong_byte(1));
  CHECK(environment.switches == std::vector<bool>{true, false});
}

TEST_CASE_METHOD(FileFixture, "direct I/O is switched only when it changes, and not beside reads") {
  const AlignedBytes data(1, 0, k_block);
  CHECK_FALSE(error(file.write_at(0, data.bytes(), WriteMode::direct)));
  CHECK_FALSE(error(file.write_at(0, data.bytes(), WriteMode::direct_stable)));
  CHECK(environment.switches == std::vector<bool>{true});
  CHECK(direct_is_set());
  CHECK(read(1, 10).size() == 10);
  CHECK_FALSE(direct_is_set());
  CHECK_FALSE(error(file.write_at(0, data.bytes(), WriteMode::cached)));
  CHECK(environment.switches == std::vector<bool>{true, false});
}

TEST_CASE_METHOD(FileFixture, "a file system without direct I/O is written through the cache") {
  const WriteMode mode = GENERATE(WriteMode::direct, WriteMode::direct_stable);
  const AlignedBytes data(1, 0, 2 * k_block);
  std::vector<std::uint32_t> flags;
  const auto note = [&](const Operation& operation, std::uint64_t) {
    if (operation.kind == Kind::write) flags.push_back(operation.flags);
    return Fault::none();
  };
  environment.on_submit(note);
  const std::uint32_t wanted = is_stable(mode) ? unsigned{RWF_DSYNC} : 0;
  SECTION("it refuses the flag") {
    environment.refusal = EINVAL;
    CHECK_FALSE(error(file.write_at(0, data.bytes(), mode)));
    CHECK(flags == std::vector<std::uint32_t>{wanted});
  }
  SECTION("it refuses the write") {
    environment.on_submit([&](const Operation& operation, std::uint64_t number) {
      note(operation, number);
      return direct_is_set() ? Fault::answer(-EINVAL) : Fault::none();
    });
    CHECK_FALSE(error(file.write_at(0, data.bytes(), mode)));
    CHECK(flags == std::vector<std::uint32_t>{wanted, wanted});
  }
  SECTION("something else is wrong") {
    environment.refusal = EBADF;
    CHECK(error(file.write_at(0, data.bytes(), mode)) == std::errc::bad_file_descriptor);
    CHECK(flags.empty());
    return;
  }
  CHECK_FALSE(direct_is_set());
  CHECK_FALSE(wrong_byte(1));
}

TEST_CASE("every way of writing works in memory too") {
  if (::access("/dev/shm", W_OK) != 0) return;
  FaultFixture fixture;
  const TemporaryFolder folder("/dev/shm");
  Directory directory = sync_wait(fixture.executor, Directory::open(folder.path(), false));
  File file = sync_wait(fixture.executor, directory.open_file("file", Open::exclusive));
  std::uint64_t position = 0;
  for (const WriteMode mode : k_modes) {
    const AlignedBytes data(1, position, 2 * k_block);
    CHECK_FALSE(error_of(fixture.executor, file.write_at(position, data.bytes(), mode)));
    position += data.bytes().size();
  }
  CHECK_FALSE(error_of(fixture.executor, file.sync_data()));
  CHECK_FALSE(error_of(fixture.executor, file.sync_filesystem()));
  const std::string all = contents(folder / "file");
  CHECK(all.size() == position);
  CHECK_FALSE(first_wrong_byte(as_bytes(all), 1, 0));
}

TEST_CASE_METHOD(FileFixture, "a short write goes on where it ended") {
  const WriteMode mode = GENERATE(WriteMode::cached, WriteMode::cached_stable);
  const std::uint64_t step = GENERATE(as<std::uint64_t>{}, 1, 7, 4096);
  const std::size_t size = step == 1 ? 100 : 10'000;
  const std::vector<std::byte> data = test_bytes(1, 0, size);
  environment.on_submit([=](const Operation&, std::uint64_t) { return Fault::shorten(step); });
  CHECK_FALSE(error(file.write_at(0, data, mode)));
  CHECK(environment.count(Kind::write) == (size + step - 1) / step);
  CHECK(text().size() == size);
  CHECK_FALSE(wrong_byte(1));
}

TEST_CASE_METHOD(FileFixture, "after a short direct write between two blocks the rest is cached") {
  const WriteMode mode = GENERATE(WriteMode::direct, WriteMode::direct_stable);
  const std::uint64_t moved = GENERATE(as<std::uint64_t>{}, 512, 4096, 4608);
  const AlignedBytes data(1, 0, 4 * k_block);
  std::vector<bool> direct;
  std::vector<bool> stable;
  environment.on_submit([&](const Operation& operation, std::uint64_t number) {
    direct.push_back(direct_is_set());
    stable.push_back((operation.flags & RWF_DSYNC) != 0);
    return number == 1 ? Fault::shorten(moved) : Fault::none();
  });
  CHECK_FALSE(error(file.write_at(0, data.bytes(), mode)));
  CHECK(direct == std::vector<bool>{true, moved % k_block == 0});
  CHECK(stable == std::vector<bool>{is_stable(mode), is_stable(mode)});
  CHECK(text().size() == data.bytes().size());
  CHECK_FALSE(wrong_byte(1));
}

TEST_CASE_METHOD(FileFixture, "a write that moves nothing is an error") {
  environment.on_submit([](const Operation&, std::uint64_t number) {
    return number == 1 ? Fault::shorten(3) : Fault::answer(0);
  });
  CHECK(error(file.write_at(0, as_bytes("hello"))) == std::errc::io_error);
  CHECK(environment.count() == 2);
  CHECK(text() == "hel");
}

TEST_CASE_METHOD(FileFixture, "an error in the middle of a write is thrown") {
  environment.on_submit([](const Operation&, std::uint64_t number) {
    return number == 1 ? Fault::shorten(3) : Fault::answer(-ENOSPC);
  });
  CHECK(error(file.write_at(0, as_bytes("hello"))) == std::errc::no_space_on_device);
  CHECK(environment.count() == 2);
  CHECK(text() == "hel");
  CHECK(error(file.write_at(std::uint64_t{1} << 63, as_bytes("far"))));
}

TEST_CASE_METHOD(FileFixture, "what the kernel asks to repeat is repeated") {
  const int code = GENERATE(EINTR, EAGAIN);
  CAPTURE(code);
  environment.on_submit(first_of(Kind::write, 3, -code));
  CHECK_FALSE(error(file.write_at(0, as_bytes("hello"))));
  CHECK(environment.count(Kind::write) == 4);
  environment.on_submit(first_of(Kind::read, 3, -code));
  CHECK(read(0, 5) == "hello");
  CHECK(environment.count(Kind::read) == 4);
}

TEST_CASE_METHOD(FileFixture, "an interrupted sync, truncation or allocation is repeated") {
  environment.on_submit([](const Operation&, std::uint64_t number) {
    return number % 3 == 0 ? Fault::none() : Fault::answer(-EINTR);
  });
  CHECK_FALSE(error(file.sync_data()));
  CHECK_FALSE(error(file.truncate(10)));
  CHECK(sync_wait(executor, file.allocate(4096)));
  CHECK(environment.count() == 9);
  CHECK(text().size() == 10);
}

TEST_CASE_METHOD(FileFixture, "a failed sync is thrown and not tried again") {
  environment.on_submit(first_of(Kind::sync, 1, -EIO));
  CHECK(error(file.sync_data()) == std::errc::io_error);
  CHECK(environment.count(Kind::sync) == 1);
  environment.on_submit(first_of(Kind::sync_filesystem, 1, -EIO));
  CHECK(error(file.sync_filesystem()) == std::errc::io_error);
  CHECK(environment.count() == 1);
}

TEST_CASE_METHOD(FileFixture, "a long transfer is cut into calls of 8 MiB") {
  constexpr std::size_t k_size = (std::size_t{20} << 20) + 1;
  const std::vector<std::byte> data = test_bytes(1, 0, k_size);
  CHECK_FALSE(error(file.write_at(0, data)));
  CHECK(environment.count(Kind::write) == 3);
  std::vector<std::byte> back(k_size);
  CHECK(sync_wait(executor, file.read_some_at(0, back)) <= std::size_t{8} << 20);
  CHECK(sync_wait(executor, file.read_at(0, back)) == k_size);
  CHECK(back == data);
}

TEST_CASE_METHOD(FileFixture, "a stopped read is cancelled, but one that moved bytes is counted") {
  CHECK_FALSE(error(file.write_at(0, as_bytes("hello"))));
  std::string bytes(5, '?');
  std::stop_source source;
  const bool moved = GENERATE(false, true);
  environment.on_submit([&](const Operation&, std::uint64_t) {
    return moved ? Fault::hold_result() : Fault::hold();
  });
  std::jthread stopper([&] {
    environment.wait_for_held();
    source.request_stop();
    if (moved) environment.release();
  });
  const auto buffer = std::as_writable_bytes(std::span(bytes));
  const std::error_code code = error(with_stop(file.read_some_at(0, buffer), source.get_token()));
  CHECK(code == (moved ? std::error_code() : make_error_code(std::errc::operation_canceled)));
  CHECK(bytes == (moved ? "hello" : "?????"));

  const std::uint64_t before = environment.count();
  CHECK(error(with_stop(file.read_some_at(0, buffer), source.get_token())) ==
        std::errc::operation_canceled);
  CHECK(environment.count() == before);
}

TEST_CASE_METHOD(FileFixture, "a stopped write and sync run to their end") {
  std::stop_source source;
  environment.on_submit([](const Operation&, std::uint64_t number) {
    return number == 1 ? Fault::shorten(2) : number == 2 ? Fault::hold() : Fault::none();
  });
  std::jthread stopper([&] {
    environment.wait_for_held();
    source.request_stop();
    environment.release();
  });
  CHECK_FALSE(error(with_stop(file.write_at(0, as_bytes("hello")), source.get_token())));
  CHECK(text() == "hello");
  CHECK_FALSE(error(with_stop(file.sync_data(), source.get_token())));
  CHECK_FALSE(error(with_stop(file.close(), source.get_token())));
}

TEST_CASE_METHOD(FileFixture, "room is reserved without changing the size") {
  CHECK(sync_wait(executor, file.allocate(std::uint64_t{1} << 20)));
  struct stat stat {};
  REQUIRE(::fstat(file.native_handle(), &stat) == 0);
  CHECK(stat.st_size == 0);
  CHECK(stat.st_blocks * 512 >= (1 << 20));
  environment.on_submit(first_of(Kind::allocate, 1, -EOPNOTSUPP));
  CHECK_FALSE(sync_wait(executor, file.allocate(4096)));
  environment.on_submit(first_of(Kind::allocate, 1, -ENOSPC));
  CHECK(error(file.allocate(4096)) == std::errc::no_space_on_device);
}

TEST_CASE_METHOD(FileFixture, "a file is cut, lengthened, copied from and given a mode") {
  CHECK_FALSE(error(file.write_at(0, as_bytes("hello world"))));
  CHECK_FALSE(error(file.truncate(5)));
  CHECK(text() == "hello");
  CHECK_FALSE(error(file.truncate(7)));
  CHECK(text() == std::string("hello\0\0", 7));
  File other = sync_wait(executor, directory.open_file("other", Open::exclusive));
  CHECK(sync_wait(executor, file.copy_range_to(1, other, 2, 4)) == 4);
  CHECK(contents(folder / "other") == std::string("\0\0ello", 6));
  CHECK(sync_wait(executor, file.copy_range_to(7, other, 6, 4)) == 0);
  CHECK_FALSE(error(file.change_mode(0640)));
  CHECK((sync_wait(executor, file.status()).mode & 07777) == 0640);
}

TEST_CASE_METHOD(FileFixture, "a file that is not open for writing refuses it") {
  File reader = sync_wait(executor, directory.open_for_reading("file"));
  CHECK(error(reader.write_at(0, as_bytes("x"))) == std::errc::bad_file_descriptor);
  CHECK(error(reader.truncate(1)) == std::errc::invalid_argument);
}

TEST_CASE_METHOD(FileFixture, "a file is closed once, through its environment or its driver") {
  environment.closed.clear();
  const int fd = file.native_handle();
  {
    File moved = std::move(file);
    CHECK_FALSE(file.is_open());
    CHECK(moved.native_handle() == fd);
    CHECK(&moved.executor() == &executor);
  }
  CHECK(environment.closed == std::vector<int>{fd});
  CHECK(::fcntl(fd, F_GETFD) == -1);

  file = sync_wait(executor, directory.open_file("file", Open::existing));
  const int second = file.native_handle();
  CHECK(environment.closed.size() == 1);
  environment.on_submit(nullptr);
  CHECK_FALSE(error(file.close()));
  CHECK(environment.count(Kind::close) == 1);
  CHECK(::fcntl(second, F_GETFD) == -1);
  CHECK_FALSE(file.is_open());
  { const File gone = std::move(file); }
  CHECK(environment.closed.size() == 1);

  File third = sync_wait(executor, directory.open_file("file", Open::existing));
  const int third_fd = third.native_handle();
  third = sync_wait(executor, directory.open_file("file", Open::existing));
  CHECK(environment.closed.back() == third_fd);
  CHECK(third.is_open());
}

TEST_CASE_METHOD(FileFixture, "a file is closed where the closing cannot be submitted") {
  environment.closed.clear();
  const int fd = file.native_handle();
  environment.on_submit([](const Operation&, std::uint64_t) -> Fault {
    throw std::system_error(EAGAIN, std::generic_category(), "no thread");
  });
  CHECK(error(file.close()) == std::errc::resource_unavailable_try_again);
  CHECK(environment.closed == std::vector<int>{fd});
  CHECK_FALSE(file.is_open());
}

TEST_CASE_METHOD(FileFixture, "whether writes are direct moves with the file") {
  const AlignedBytes data(1, 0, k_block);
  CHECK_FALSE(error(file.write_at(0, data.bytes(), WriteMode::direct)));
  File moved = std::move(file);
  CHECK_FALSE(error(moved.write_at(0, data.bytes().subspan(1), WriteMode::cached)));
  CHECK(environment.switches == std::vector<bool>{true, false});
}

TEST_CASE("a direct write that is not aligned aborts") {
  const TemporaryFolder folder;
  struct Write {
    std::size_t offset, start, size;
  };
  const Write write =
      GENERATE(Write{1, 0, k_block}, Write{0, 1, k_block}, Write{0, 0, k_block - 1});
  ChildProcess child([&] {
    const rlimit none{0, 0};
    ::setrlimit(RLIMIT_CORE, &none);
    std::signal(SIGABRT, SIG_DFL);
    ::close(STDERR_FILENO);
    FaultFixture fixture;
    Directory directory = sync_wait(fixture.executor, Directory::open(folder.path(), false));
    File file = sync_wait(fixture.executor, directory.open_file("file", Open::always));
    const AlignedBytes data(1, 0, 2 * k_block);
    const auto bytes = data.bytes().subspan(write.start, write.size);
    sync_wait(fixture.executor, file.write_at(write.offset, bytes, WriteMode::direct));
    return 0;
  });
  CHECK(child.wait() == -SIGABRT);
}
