// Whole uploads of SQLiteStorage: joined from parts, and handed over to the application.

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <sys/stat.h>
#include <vector>

#include "sqlite_protocol.hpp"

using namespace tidemark;
using namespace tidemark::test;
using namespace std::chrono_literals;
namespace fs = std::filesystem;
using Kind = Operation::Kind;

namespace {

constexpr std::size_t k_mib = std::size_t{1} << 20;

Task<void> join(SQLiteStorage& storage, UploadId id, std::vector<UploadId> parts) {
  Metadata metadata{{"filename", "whole"}};
  co_await storage.concatenate(id, std::move(parts), std::move(metadata));
}

struct WholeFixture : ProtocolFixture {
  /// A finished part with the bytes of seed 1 from `position` on.
  void create_part(UploadId id, std::uint64_t position, std::size_t size) {
    create(id, size);
    const Bytes bytes = test_bytes(1, position, size);
    if (size > 0) REQUIRE(wait((**this).append(id, 0, bytes)) == committed(size, true));
  }
  /// p0, p1, ... which together are test_bytes(1, 0, ...).
  std::vector<UploadId> create_parts(const std::vector<std::size_t>& sizes) {
    std::vector<UploadId> ids;
    std::uint64_t position = 0;
    for (const std::size_t size : sizes) {
      ids.emplace_back("p" + std::to_string(ids.size()));
      create_part(ids.back(), position, size);
      position += size;
    }
    return ids;
  }
  void check_nothing_of(UploadId id) {
    CHECK_FALSE(foreign.has_row(id.view()));
    CHECK_FALSE(fs::exists(path(id)));
  }
  std::error_code release_error(UploadId id, const fs::path& to) {
    return error_of((**this).release_to(id, to));
  }
  void check_released(const fs::path& to, std::size_t size) {
    const std::string all = contents(to);
    CHECK(all.size() == size);
    CHECK(first_wrong_byte(as_bytes(all), 1, 0) == std::nullopt);
  }
};

std::size_t entries_of(const fs::path& folder) {
  return static_cast<std::size_t>(
      std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
}

}  // namespace

TEST_CASE_METHOD(WholeFixture, "a join is stable before its row, and is marked in the rows") {
  const std::vector<UploadId> parts = create_parts({5000, 1, k_mib + 3});
  drain();
  environment.on_submit([](const Operation& operation, std::uint64_t) {
    const bool stable = operation.kind != Kind::write && makes_stable(operation, "whole");
    return stable ? Fault::hold_result() : Fault::none();
  });
  const auto running = start(join(**this, "whole", parts));
  int held = 0;
  while (running->wait_until_held()) {
    ++held;
    drain();
    CHECK_FALSE(foreign.has_row("whole"));
    environment.release();
  }
  CHECK(held > 0);
  CHECK_FALSE(running->error());
  environment.on_submit(nullptr);
  check_upload("whole", k_mib + 5004);
  CHECK(foreign.ask("concat_partial_ids", "whole") == R"(["p0", "p1", "p2"])");
  CHECK(foreign.ask("is_partial", "whole") == "0");
  CHECK(foreign.ask("completed", "whole") == "1");
  CHECK(wait((**this).get_upload("whole"))->parts == parts);
  for (const UploadId& part : parts) {
    CHECK(foreign.ask("is_partial", part.view()) == "1");
    CHECK(wait((**this).get_upload(part))->is_partial);
  }
}

TEST_CASE_METHOD(WholeFixture, "a join is known again by its parts") {
  const std::vector<UploadId> parts = create_parts({5000, 3000});
  wait(join(**this, "whole", parts));
  const OperationLog log(environment);
  wait(join(**this, "whole", parts));
  CHECK(log.count(Kind::copy_range) == 0);
  CHECK(error_of(join(**this, "whole", {"p1", "p0"})) == Errc::already_exists);
  CHECK(error_of(join(**this, "whole", {"p0"})) == Errc::already_exists);
  close();
  open();
  wait(join(**this, "whole", parts));
  // Also once its parts are gone.
  for (const UploadId& part : parts) wait((**this).delete_upload(part));
  wait(join(**this, "whole", parts));
  check_upload("whole", 8000);
}

TEST_CASE_METHOD(WholeFixture, "a join waits for parts that other processes hold") {
  const std::vector<UploadId> parts = create_parts({5000, 3000});
  PlainFile other(path("p1"));
  REQUIRE(other.try_lock());
  environment.on_submit([&, tries = 0](const Operation& operation, std::uint64_t) mutable {
    const bool third = operation.kind == Kind::lock && name_of(operation) == "p1" && ++tries == 3;
    if (third) other.unlock();
    return Fault::none();
  });
  wait(join(**this, "whole", parts));
  environment.on_submit(nullptr);
  check_upload("whole", 8000);
  for (const UploadId& part : parts) CHECK_FALSE(is_locked(path(part)));
}

TEST_CASE_METHOD(SqliteFolder, "a join gives up on a part that stays held, and leaves nothing") {
  ProtocolStore store(folder.path(), {.lock_timeout = 1ms});
  store.create_at("p0", 10, 10);
  store.create_at("p1", 10, 10);
  {
    PlainFile other(store.path("p1"));
    REQUIRE(other.try_lock());
    CHECK(store.error_of(join(*store, "whole", {"p0", "p1"})) == Errc::lock_timeout);
  }
  CHECK_FALSE(store.foreign.has_row("whole"));
  CHECK_FALSE(fs::exists(store.path("whole")));
  CHECK_FALSE(is_locked(store.path("p0")));
  store.check_nothing_left();
}

TEST_CASE_METHOD(WholeFixture, "a join copies itself where the kernel does not") {
  const int code = GENERATE(EXDEV, EOPNOTSUPP, EINVAL, ENOSYS);
  const int good_steps = GENERATE(0, 1, 3);
  CAPTURE(code, good_steps);
  const std::vector<UploadId> parts = create_parts({3 * k_mib + 5, 0, 5000, 1});
  const OperationLog log(
      environment, [=, steps = 0](const Operation& operation, std::uint64_t) mutable {
        if (operation.kind != Kind::copy_range) return Fault::none();
        return ++steps > good_steps ? Fault::answer(-code) : Fault::shorten(1000);
      });
  wait(join(**this, "whole", parts));
  check_upload("whole", 3 * k_mib + 5006);
  CHECK(log.count(Kind::write, "whole") > 0);
}

TEST_CASE_METHOD(WholeFixture, "a join of short steps is whole") {
  const std::vector<UploadId> parts = create_parts({100'000, 5000});
  const OperationLog log(environment, [](const Operation& operation, std::uint64_t) {
    return operation.kind == Kind::copy_range ? Fault::shorten(4097) : Fault::none();
  });
  wait(join(**this, "whole", parts));
  check_upload("whole", 105'000);
  CHECK(log.count(Kind::copy_range) >= 26);
  CHECK(log.count(Kind::write, "whole") == 0);
}

TEST_CASE_METHOD(WholeFixture, "whichever step of a join fails, there is the whole or nothing") {
  const int code = GENERATE(EIO, ENOSPC);
  const bool done = GENERATE(false, true);
  const Fault fault = done ? Fault::done_but_answer(-code) : Fault::answer(-code);
  const std::vector<UploadId> parts = create_parts({5000, 3000});
  std::uint64_t step = 1;
  for (bool reached = true; reached; ++step) {
    CAPTURE(code, done, step);
    environment.on_submit(at_step(step, fault));
    const std::error_code error = error_of(join(**this, "whole", parts));
    reached = environment.count() >= step;
    environment.on_submit(nullptr);
    if (!reached) CHECK_FALSE(error);
    if (error) {
      CHECK(error == (code == EIO ? Errc::io_error : Errc::no_space));
      CHECK_FALSE(foreign.has_row("whole"));
    }
    for (const UploadId& part : parts) CHECK_FALSE(is_locked(path(part)));
    wait(join(**this, "whole", parts));
    check_upload("whole", 8000);
    check_nothing_left();
    wait((**this).delete_upload("whole"));
  }
  CHECK(step > 10);
  check_upload("p0", 5000);
}

TEST_CASE_METHOD(WholeFixture, "a join has at most 512 different parts") {
  std::vector<UploadId> parts;
  for (std::size_t i = 0; i < 513; ++i) {
    parts.emplace_back("p" + std::to_string(i));
    foreign.create(parts.back().view(), 10);
    foreign.move_to(parts.back().view(), 10);
    PlainFile(path(parts.back())).write(0, test_bytes(1, 10 * i, 10));
  }
  CHECK(error_of(join(**this, "whole", parts)) == Errc::invalid_argument);
  check_nothing_of("whole");
  parts.pop_back();
  wait(join(**this, "whole", parts));
  check_upload("whole", 5120);
  check_nothing_left();
  wait(join(**this, "repeated", std::vector<UploadId>(600, "p0")));
  CHECK(foreign.offset("repeated") == 6000);
  CHECK(fs::file_size(path("repeated")) == 6000);
}

TEST_CASE_METHOD(WholeFixture, "a part that is not what its row says is not joined") {
  const std::vector<UploadId> parts = create_parts({5000, 3000});
  SECTION("too short") {
    fs::resize_file(path("p1"), 2999);
    CHECK(error_of(join(**this, "whole", parts)) == Errc::corrupt);
    check_nothing_of("whole");
    CHECK(fs::file_size(path("p1")) == 2999);
  }
  SECTION("missing") {
    fs::remove(path("p1"));
    CHECK(error_of(join(**this, "whole", parts)) == Errc::corrupt);
    check_nothing_of("whole");
  }
  SECTION("too long, by what a writer that lost has left") {
    PlainFile(path("p0")).write(5000, test_bytes(9, 0, 100));
    wait(join(**this, "whole", parts));
    check_upload("whole", 8000);
  }
}

TEST_CASE_METHOD(WholeFixture, "a release on one file system gives the file another name") {
  create_part("a", 0, k_mib + 5);
  struct stat before {};
  REQUIRE(::stat(path("a").c_str(), &before) == 0);
  const OperationLog log(environment);
  wait((**this).release_to("a", folder / "out"));
  struct stat after {};
  REQUIRE(::stat((folder / "out").c_str(), &after) == 0);
  CHECK(before.st_ino == after.st_ino);
  CHECK(after.st_nlink == 1);
  check_released(folder / "out", k_mib + 5);
  check_nothing_of("a");
  CHECK(log.count(Kind::copy_range) + log.count(Kind::read) == 0);
  check_nothing_left();
}

TEST_CASE_METHOD(WholeFixture, "a release across file systems copies") {
  const bool in_kernel = GENERATE(true, false);
  const std::string why = GENERATE("another file system", "no links");
  CAPTURE(in_kernel, why);
  const TemporaryFolder away(why == "no links" ? folder.path() : fs::path("/dev/shm"));
  create_part("a", 0, 3 * k_mib + 5);
  environment.on_submit([&, links = 0](const Operation& operation, std::uint64_t) mutable {
    const bool refused = why == "no links" && operation.kind == Kind::link && ++links == 1;
    if (refused) return Fault::answer(-EPERM);
    const bool no_range = operation.kind == Kind::copy_range && !in_kernel;
    return no_range ? Fault::answer(-EXDEV) : Fault::none();
  });
  wait((**this).release_to("a", away / "out"));
  environment.on_submit(nullptr);
  check_released(away / "out", 3 * k_mib + 5);
  CHECK(entries_of(away.path()) == 1);
  check_nothing_of("a");
  check_nothing_left();
}

TEST_CASE_METHOD(WholeFixture,
                 "a release is stable before the row goes, which goes before the file") {
  const TemporaryFolder away(folder.path());
  create_part("a", 0, 5000);
  drain();
  const std::string name = away.path().filename();
  environment.on_submit([&](const Operation& operation, std::uint64_t) {
    const bool synced = operation.kind == Kind::sync && name_of(operation) == name;
    const bool unlinked = operation.kind == Kind::unlink && name_of(operation) == "a";
    return synced || unlinked ? Fault::hold() : Fault::none();
  });
  const auto running = start((**this).release_to("a", away / "out"));
  REQUIRE(running->wait_until_held());
  drain();
  check_released(away / "out", 5000);
  CHECK(foreign.has_row("a"));
  environment.release();
  REQUIRE(running->wait_until_held());
  CHECK_FALSE(foreign.has_row("a"));
  CHECK(fs::exists(path("a")));
  environment.release();
  CHECK_FALSE(running->error());
  environment.on_submit(nullptr);
  check_nothing_of("a");
}

TEST_CASE_METHOD(WholeFixture, "whichever step of a release fails, the bytes keep a name") {
  const int code = GENERATE(EIO, ENOSPC);
  const bool done = GENERATE(false, true);
  const bool copied = GENERATE(false, true);
  const Fault fault = done ? Fault::done_but_answer(-code) : Fault::answer(-code);
  const TemporaryFolder away(copied ? fs::path("/dev/shm") : folder.path());
  std::uint64_t step = 1;
  for (bool reached = true; reached; ++step) {
    CAPTURE(code, done, copied, step);
    const UploadId id("a" + std::to_string(step));
    create_part(id, 0, 5000);
    environment.on_submit(at_step(step, fault));
    const std::error_code error = release_error(id, away / "out");
    reached = environment.count() >= step;
    environment.on_submit(nullptr);
    if (!reached) CHECK_FALSE(error);
    const bool has_row = foreign.has_row(id.view());
    if (has_row) {
      check_upload(id, 5000);
    } else {
      check_released(away / "out", 5000);
    }
    if (has_row && copied) fs::remove(away / "out");
    if (has_row) wait((**this).release_to(id, away / "out"));
    check_released(away / "out", 5000);
    check_nothing_left();
    fs::remove(away / "out");
    if (fault.kind == Fault::Kind::answer) wait((**this).sweep({.min_age = 0s}));
  }
  CHECK(step > 8);
}

TEST_CASE_METHOD(WholeFixture, "a release that was cut short is done again") {
  create_part("a", 0, 5000);
  fs::create_hard_link(path("a"), folder / "out");
  wait((**this).release_to("a", folder / "out"));
  check_released(folder / "out", 5000);
  check_nothing_of("a");
}

TEST_CASE_METHOD(WholeFixture, "a create harms no released file that still has the upload's name") {
  // As after a crash between the row's end and the file's.
  const bool joined = GENERATE(false, true);
  create_part("part", 0, 10);
  create_part("a", 0, 5000);
  fs::create_hard_link(path("a"), folder / "out");
  foreign.exec("DELETE FROM uploads WHERE upload_id = 'a'");
  if (joined) {
    wait(join(**this, "a", {"part"}));
    check_upload("a", 10);
  } else {
    create("a", 10);
    check_and_finish("a", 0, 10);
  }
  check_released(folder / "out", 5000);
}

TEST_CASE_METHOD(WholeFixture, "a release writes over nothing, and cuts what is too long") {
  create_part("a", 0, 5000);
  PlainFile(path("a")).write(5000, test_bytes(9, 0, 100));
  write_contents(folder / "out", "mine");
  CHECK(release_error("a", folder / "out") == Errc::already_exists);
  CHECK(contents(folder / "out") == "mine");
  fs::create_symlink(folder / "nowhere", folder / "link");
  CHECK(release_error("a", folder / "link") == Errc::already_exists);
  CHECK_FALSE(fs::exists(folder / "nowhere"));
  check_upload("a", 5000);
  wait((**this).release_to("a", folder / "free"));
  check_released(folder / "free", 5000);
}

TEST_CASE_METHOD(WholeFixture, "a release to the upload's own name is refused") {
  create_at("a", 1000, 1000);
  CHECK(error_of((**this).release_to("a", path("a"))) == Errc::already_exists);
  check_upload("a", 1000);
}

TEST_CASE_METHOD(WholeFixture, "a release syncs what another program wrote") {
  foreign.create("a", 5000);
  foreign.append("a", 1, 0, 5000);
  const OperationLog log(environment);
  wait((**this).release_to("a", folder / "out"));
  CHECK(log.whole_syncs("a") > 0);
  check_released(folder / "out", 5000);
}
