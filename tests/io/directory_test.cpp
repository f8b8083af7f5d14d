#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/openat2.h>
#include <linux/seccomp.h>
#include <string>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <thread>
#include <unistd.h>
#include <vector>

#include <tidemark/engine/sync_wait.hpp>
#include <tidemark/io/directory.hpp>

#include "catch.hpp"
#include "child_process.hpp"
#include "driver_fixture.hpp"
#include "fault_driver.hpp"
#include "file_tools.hpp"
#include "temporary_folder.hpp"

using namespace tidemark;
using namespace tidemark::test;
namespace fs = std::filesystem;
using Kind = Operation::Kind;
using Open = Directory::Open;

namespace {

/// An empty folder, opened on the driver under test.
struct DirectoryFixture : FaultFixture {
  TemporaryFolder folder;
  Directory directory = sync_wait(executor, Directory::open(folder.path(), false));

  template <class T>
  std::error_code error(Task<T> task) {
    return error_of(executor, std::move(task));
  }
  bool makes(const char* name, Open how) { return !error(directory.open_file(name, how)); }
};

void set_umask_022() {
  ::umask(022);
}

mode_t permissions(const fs::path& path) {
  struct stat stat {};
  if (::stat(path.c_str(), &stat) != 0) throw std::system_error(errno, std::generic_category());
  return stat.st_mode & 07777;
}

/// From now on openat2 answers `error` in this thread and those that it starts.
void deny_openat2(int error) {
  sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat2, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | static_cast<unsigned>(error)),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog filter{.len = std::size(code), .filter = code};
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
      ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) != 0) {
    throw std::system_error(errno, std::generic_category(), "seccomp");
  }
}

constexpr const char* k_bad_names[] = {"", ".", "..", "/", "a/b", "/tmp", "../x", "a/", "./a"};

}  // namespace

TEST_CASE_METHOD(DirectoryFixture, "a file is opened, made, or made only when there is none") {
  CHECK(error(directory.open_file("a", Open::existing)) == std::errc::no_such_file_or_directory);
  CHECK_FALSE(fs::exists(folder / "a"));
  CHECK(makes("a", Open::exclusive));
  CHECK(error(directory.open_file("a", Open::exclusive)) == std::errc::file_exists);
  write_contents(folder / "a", "kept");
  CHECK(makes("a", Open::existing));
  CHECK(makes("a", Open::always));
  CHECK(contents(folder / "a") == "kept");
  CHECK(makes("b", Open::always));
  CHECK(contents(folder / "b").empty());
  CHECK(error(directory.open_for_reading("c")) == std::errc::no_such_file_or_directory);
  const File file = sync_wait(executor, directory.open_for_reading("a"));
  CHECK((::fcntl(file.native_handle(), F_GETFL) & (O_ACCMODE | O_NONBLOCK)) == O_RDONLY);
  CHECK((::fcntl(file.native_handle(), F_GETFD) & FD_CLOEXEC) != 0);
}

TEST_CASE_METHOD(DirectoryFixture, "a new file has the mode that was asked for, less the umask") {
  set_umask_022();
  CHECK(makes("usual", Open::always));
  CHECK(permissions(folder / "usual") == 0644);
  CHECK_FALSE(error(directory.open_file("own", Open::exclusive, 0600)));
  CHECK(permissions(folder / "own") == 0600);
  CHECK_FALSE(error(directory.open_file("own", Open::always, 0666)));
  CHECK(permissions(folder / "own") == 0600);
}

TEST_CASE_METHOD(DirectoryFixture, "a name is one component") {
  const std::size_t before = open_descriptors();
  fs::create_directory(folder / "a");
  write_contents(folder / "a/b", "");
  for (const char* name : k_bad_names) {
    CAPTURE(name);
    const auto refused = std::errc::invalid_argument;
    for (const Open how : {Open::existing, Open::exclusive, Open::always}) {
      CHECK(error(directory.open_file(name, how)) == refused);
    }
    CHECK(error(directory.open_for_reading(name)) == refused);
    CHECK(error(directory.status(name)) == refused);
    CHECK(error(directory.unlink(name)) == refused);
    CHECK(error(directory.rename(name, "x")) == refused);
    CHECK(error(directory.rename("x", name)) == refused);
    CHECK(error(directory.link_to(name, directory, "x")) == refused);
    CHECK(error(directory.link_to("x", directory, name)) == refused);
  }
  const std::string longest(255, 'n');
  CHECK(makes(longest.c_str(), Open::exclusive));
  CHECK(error(directory.open_file((longest + "n").c_str(), Open::always)) ==
        std::errc::filename_too_long);
  CHECK(open_descriptors() == before);
}

TEST_CASE_METHOD(DirectoryFixture, "a symbolic link in the folder is refused wherever it points") {
  const TemporaryFolder outside;
  write_contents(outside / "secret", "outside");
  write_contents(folder / "target", "inside");
  fs::create_symlink(outside / "secret", folder / "outward");
  fs::create_symlink("target", folder / "inward");
  fs::create_symlink(folder / "target", folder / "absolute");
  fs::create_symlink("missing", folder / "dangling");
  fs::create_symlink(".", folder / "itself");
  fs::create_symlink("circle", folder / "circle");
  const std::size_t before = open_descriptors();
  for (const char* name : {"outward", "inward", "absolute", "dangling", "itself", "circle"}) {
    CAPTURE(name);
    const auto refused = std::errc::too_many_symbolic_link_levels;
    CHECK(error(directory.open_file(name, Open::existing)) == refused);
    CHECK(error(directory.open_file(name, Open::always)) == refused);
    CHECK(error(directory.open_file(name, Open::exclusive)) == std::errc::file_exists);
    CHECK(error(directory.open_for_reading(name)) == refused);
    const std::optional<FileStatus> status = sync_wait(executor, directory.status(name));
    REQUIRE(status);
    CHECK_FALSE(status->is_regular);
    CHECK(sync_wait(executor, directory.unlink(name)));
  }
  CHECK_FALSE(fs::exists(folder / "missing"));
  CHECK(contents(folder / "target") == "inside");
  CHECK(contents(outside / "secret") == "outside");
  CHECK(open_descriptors() == before);
}

TEST_CASE_METHOD(DirectoryFixture, "a file is opened beneath its folder and through no link") {
  static constexpr std::uint64_t k_beneath = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS;
  environment.on_submit([](const Operation& operation, std::uint64_t) {
    if (operation.kind == Kind::open) {
      CHECK(operation.how.resolve == k_beneath);
      CHECK((operation.how.flags & O_NOFOLLOW) != 0);
    }
    return Fault::none();
  });
  CHECK(makes("a", Open::always));
  CHECK_FALSE(error(directory.open_for_reading("a")));
  CHECK(environment.count(Kind::open) == 2);
}

TEST_CASE_METHOD(DirectoryFixture, "what is no regular file is refused, and waited for by nobody") {
  fs::create_directory(folder / "folder");
  REQUIRE(::mkfifo((folder / "pipe").c_str(), 0666) == 0);
  const std::size_t before = open_descriptors();
  CHECK(error(directory.open_file("folder", Open::existing)) == std::errc::is_a_directory);
  CHECK(error(directory.open_for_reading("folder")) == std::errc::invalid_argument);
  CHECK(error(directory.open_file("pipe", Open::existing)) == std::errc::invalid_argument);
  CHECK(error(directory.open_file("pipe", Open::always)) == std::errc::invalid_argument);
  CHECK(error(directory.open_for_reading("pipe")) == std::errc::invalid_argument);
  CHECK(open_descriptors() == before);
}

TEST_CASE_METHOD(DirectoryFixture, "a pipe that takes a file's name is waited for by nobody") {
  write_contents(folder / "a", "");
  REQUIRE(::mkfifo((folder / "pipe").c_str(), 0666) == 0);
  const std::size_t before = open_descriptors();
  environment.on_submit([&](const Operation& operation, std::uint64_t) {
    if (operation.kind == Kind::open) fs::rename(folder / "pipe", folder / "a");
    return Fault::none();
  });
  CHECK(error(directory.open_for_reading("a")) == std::errc::invalid_argument);
  CHECK(open_descriptors() == before);
}

TEST_CASE_METHOD(DirectoryFixture, "a folder is opened through links, and is nothing else") {
  fs::create_directory(folder / "real");
  fs::create_symlink("real", folder / "link");
  Directory through = sync_wait(executor, Directory::open(folder / "link", false));
  CHECK_FALSE(error(through.open_file("a", Open::exclusive)));
  CHECK(fs::exists(folder / "real/a"));
  CHECK(error(Directory::open(folder / "real/a", false)) == std::errc::not_a_directory);
  CHECK(error(Directory::open(folder / "none", false)) == std::errc::no_such_file_or_directory);
  CHECK(error(Directory::open("", false)) == std::errc::no_such_file_or_directory);
  CHECK(error(Directory::open(folder / "real/a", true)) == std::errc::not_a_directory);
}

TEST_CASE_METHOD(DirectoryFixture, "missing folders are made, each stable in its parent") {
  set_umask_022();
  std::vector<Kind> made;
  environment.on_submit([&](const Operation& operation, std::uint64_t) {
    const Kind kind = operation.kind;
    if (kind == Kind::make_directory || kind == Kind::sync) made.push_back(kind);
    return Fault::none();
  });
  Directory inner = sync_wait(executor, Directory::open(folder / "a/b/c/", true));
  CHECK_FALSE(error(inner.open_file("file", Open::exclusive)));
  CHECK(fs::exists(folder / "a/b/c/file"));
  CHECK(permissions(folder / "a/b") == 0755);
  REQUIRE(made.size() >= 6);
  const std::vector<Kind> last(made.end() - 6, made.end());
  CHECK(last == std::vector<Kind>{Kind::make_directory, Kind::sync, Kind::make_directory,
                                  Kind::sync, Kind::make_directory, Kind::sync});
  made.clear();
  CHECK_FALSE(error(Directory::open(folder / "a/b/../b/c", true)));
  CHECK(std::count(made.begin(), made.end(), Kind::sync) == 1);

  environment.on_submit([](const Operation& operation, std::uint64_t) {
    return operation.kind == Kind::sync ? Fault::answer(-EIO) : Fault::none();
  });
  CHECK(error(Directory::open(folder / "a/d", true)) == std::errc::io_error);
  CHECK(error(Directory::open(folder / "a/d", true)) == std::errc::io_error);
}

TEST_CASE_METHOD(DirectoryFixture,
                 "an existing folder is opened where its parent is not readable") {
  const int code = GENERATE(EACCES, EINVAL);
  CAPTURE(code);
  fs::create_directory(folder / "a");
  const std::string parent = folder.path();
  environment.on_submit([&](const Operation& operation, std::uint64_t) {
    const bool opens = operation.kind == Kind::open && operation.path == parent;
    const bool fails = code == EACCES ? opens : operation.kind == Kind::sync;
    return fails ? Fault::answer(-code) : Fault::none();
  });
  CHECK_FALSE(error(Directory::open(folder / "a", true)));
  CHECK(error(Directory::open(folder / "b", true)) ==
        std::error_code(code, std::generic_category()));
}

TEST_CASE_METHOD(DirectoryFixture, "the status of a name") {
  CHECK_FALSE(sync_wait(executor, directory.status("a")));
  const SystemTime before = std::chrono::floor<std::chrono::seconds>(environment.system_now());
  write_contents(folder / "a", "12345");
  fs::create_hard_link(folder / "a", folder / "b");
  fs::permissions(folder / "a", fs::perms::owner_read | fs::perms::owner_write);
  const std::optional<FileStatus> a = sync_wait(executor, directory.status("a"));
  REQUIRE(a);
  CHECK(a->size == 5);
  CHECK(a->links == 2);
  CHECK(a->is_regular);
  CHECK((a->mode & 07777) == 0600);
  CHECK(a->modified_at >= before);
  CHECK(a->modified_at <= environment.system_now());
  CHECK(a->same_file(*sync_wait(executor, directory.status("b"))));
  write_contents(folder / "c", "12345");
  CHECK_FALSE(a->same_file(*sync_wait(executor, directory.status("c"))));
  const File file = sync_wait(executor, directory.open_for_reading("b"));
  struct stat stat {};
  REQUIRE(::fstat(file.native_handle(), &stat) == 0);
  CHECK(a->inode == stat.st_ino);
}

TEST_CASE_METHOD(DirectoryFixture, "names are removed, renamed, linked and listed") {
  write_contents(folder / "a", "1");
  write_contents(folder / "b", "2");
  fs::create_directory(folder / "folder");
  CHECK_FALSE(sync_wait(executor, directory.unlink("none")));
  CHECK(error(directory.unlink("folder")) == std::errc::is_a_directory);
  CHECK(error(directory.rename("none", "a")) == std::errc::no_such_file_or_directory);
  CHECK_FALSE(error(directory.rename("a", "b")));
  CHECK(contents(folder / "b") == "1");
  CHECK_FALSE(fs::exists(folder / "a"));

  Directory inner = sync_wait(executor, Directory::open(folder / "folder", false));
  CHECK_FALSE(error(directory.link_to("b", inner, "c")));
  CHECK(contents(folder / "folder/c") == "1");
  CHECK(error(directory.link_to("b", inner, "c")) == std::errc::file_exists);
  fs::create_symlink("b", folder / "link");
  CHECK_FALSE(error(directory.link_to("link", inner, "link")));
  CHECK(fs::is_symlink(folder / "folder/link"));

  std::vector<std::string> names = sync_wait(executor, directory.list());
  std::sort(names.begin(), names.end());
  CHECK(names == std::vector<std::string>{"b", "folder", "link"});
  CHECK(sync_wait(executor, directory.list()).size() == 3);
  CHECK(sync_wait(executor, directory.unlink("b")));
  CHECK(contents(folder / "folder/c") == "1");
}

TEST_CASE_METHOD(DirectoryFixture, "a folder of many names is listed whole") {
  constexpr int k_names = 3000;  // More than one call of the system gives.
  for (int i = 0; i < k_names; ++i) write_contents(folder / std::to_string(i), "");
  std::vector<std::string> names = sync_wait(executor, directory.list());
  std::sort(names.begin(), names.end());
  CHECK(names.size() == k_names);
  CHECK(std::unique(names.begin(), names.end()) == names.end());
}

TEST_CASE_METHOD(DirectoryFixture, "names are made stable, and the file system described") {
  CHECK_FALSE(error(directory.sync()));
  CHECK(environment.count(Kind::sync) == 1);
  const FilesystemStatus status = sync_wait(executor, directory.filesystem());
  CHECK(status.free_bytes > 0);
  CHECK_FALSE(status.is_network);

  environment.on_submit([](const Operation& operation, std::uint64_t) {
    *operation.filesystem = {};
    operation.filesystem->f_bsize = 1 << 20;  // The best size of a transfer.
    operation.filesystem->f_frsize = 4096;    // What the blocks are counted in.
    operation.filesystem->f_bavail = 3;
    return Fault::answer(0);
  });
  CHECK(sync_wait(executor, directory.filesystem()).free_bytes == 3 * 4096);
}

TEST_CASE_METHOD(DirectoryFixture, "a folder that was moved or replaced is not still there") {
  fs::create_directory(folder / "one");
  fs::create_directory(folder / "two");
  fs::create_directory_symlink("one", folder / "link");
  Directory one = sync_wait(executor, Directory::open(folder / "one", false));
  Directory linked = sync_wait(executor, Directory::open(folder / "link", false));
  CHECK(sync_wait(executor, one.is_still_there()));
  CHECK(sync_wait(executor, linked.is_still_there()));
  fs::remove(folder / "link");
  fs::create_directory_symlink("two", folder / "link");
  CHECK_FALSE(sync_wait(executor, linked.is_still_there()));
  fs::rename(folder / "one", folder / "moved");
  CHECK_FALSE(sync_wait(executor, one.is_still_there()));
  fs::create_directory(folder / "one");
  CHECK_FALSE(sync_wait(executor, one.is_still_there()));
  fs::remove(folder / "one");
  fs::rename(folder / "moved", folder / "one");
  CHECK(sync_wait(executor, one.is_still_there()));
  CHECK_FALSE(error(one.open_file("a", Open::exclusive)));
}

TEST_CASE_METHOD(DirectoryFixture, "failures of the system are thrown, and leak no descriptor") {
  write_contents(folder / "a", "");
  const std::size_t before = open_descriptors();
  Kind failing = Kind::open;
  environment.on_submit([&](const Operation& operation, std::uint64_t) {
    return operation.kind == failing ? Fault::answer(-EMFILE) : Fault::none();
  });
  const auto fails = [&](Kind kind, auto task) {
    failing = kind;
    return error(std::move(task)) == std::errc::too_many_files_open;
  };
  CHECK(fails(Kind::open, directory.open_file("a", Open::always)));
  CHECK(fails(Kind::open, Directory::open(folder.path(), false)));
  CHECK(fails(Kind::stat, directory.open_file("a", Open::always)));
  CHECK(fails(Kind::stat, directory.open_for_reading("a")));
  CHECK(fails(Kind::stat, Directory::open(folder.path(), false)));
  CHECK(fails(Kind::stat, directory.status("a")));
  CHECK(fails(Kind::make_directory, Directory::open(folder / "x", true)));
  CHECK(fails(Kind::unlink, directory.unlink("a")));
  CHECK(fails(Kind::rename, directory.rename("a", "b")));
  CHECK(fails(Kind::link, directory.link_to("a", directory, "b")));
  CHECK(fails(Kind::list_directory, directory.list()));
  CHECK(fails(Kind::sync, directory.sync()));
  CHECK(fails(Kind::stat_filesystem, directory.filesystem()));
  CHECK(fails(Kind::stat, directory.is_still_there()));
  CHECK(open_descriptors() == before);
  CHECK(contents(folder / "a").empty());
}

TEST_CASE_METHOD(DirectoryFixture, "an interruption is repeated") {
  int interruptions = 3;
  environment.on_submit([&](const Operation&, std::uint64_t) {
    return interruptions-- > 0 ? Fault::answer(-EINTR) : Fault::none();
  });
  CHECK(makes("a", Open::exclusive));
  CHECK(environment.count(Kind::open) == 4);
  CHECK(fs::exists(folder / "a"));
}

TEST_CASE_METHOD(DirectoryFixture, "what was asked about a name runs to its end when stopped") {
  write_contents(folder / "a", "");
  std::stop_source source;
  environment.on_submit([](const Operation&, std::uint64_t) { return Fault::hold(); });
  std::jthread stopper([&] {
    environment.wait_for_held();
    source.request_stop();
    environment.release();
  });
  CHECK_FALSE(error(with_stop(directory.rename("a", "b"), source.get_token())));
  CHECK(fs::exists(folder / "b"));
}

TEST_CASE("where openat2 is filtered, links are refused all the same") {
  const int error = GENERATE(ENOSYS, EPERM);
  CAPTURE(error);
  const TemporaryFolder folder;
  fs::create_directory(folder / "real");
  fs::create_symlink("real", folder / "link");
  write_contents(folder / "real/a", "");
  fs::create_symlink("a", folder / "real/to_a");
  ChildProcess child([&] {
    deny_openat2(error);
    Engine engine({.driver = DriverKind::threads});
    Executor& executor = engine.executor();
    Directory directory = sync_wait(executor, Directory::open(folder / "link", false));
    const auto code = [&](const char* name, Open how) {
      return error_of(executor, directory.open_file(name, how));
    };
    if (code("to_a", Open::existing) != std::errc::too_many_symbolic_link_levels) return 1;
    if (code("to_a", Open::always) != std::errc::too_many_symbolic_link_levels) return 2;
    if (code("../link", Open::existing) != std::errc::invalid_argument) return 3;
    if (code("a", Open::existing) || code("new", Open::exclusive)) return 4;
    if (code("new", Open::exclusive) != std::errc::file_exists) return 5;
    return error_of(executor, directory.open_for_reading("a")) ? 6 : 0;
  });
  CHECK(child.wait() == 0);
  CHECK(fs::exists(folder / "real/new"));
}
