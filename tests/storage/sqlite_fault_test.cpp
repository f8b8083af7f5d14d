// SQLiteStorage on a system that fails: A3 to A6 of the design.

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <vector>

#include <tidemark/engine/when_all.hpp>

#include "sqlite_protocol.hpp"

using namespace tidemark;
using namespace tidemark::test;
using Kind = Operation::Kind;

namespace {

constexpr std::size_t k_mib = std::size_t{1} << 20;
constexpr std::uint64_t k_begin = 5000;
constexpr std::size_t k_uploads = 32;  // So many that one sync of the file system serves them.
constexpr std::size_t k_size = 300;

Errc meaning_of(int code) {
  return code == ENOSPC || code == EDQUOT ? Errc::no_space : Errc::io_error;
}

Task<std::error_code> write_outcome(SQLiteStorage& storage, UploadId id, std::size_t size) {
  try {
    const std::unique_ptr<UploadWriter> writer = co_await storage.open_writer(id);
    co_await write_bytes(storage, *writer, size);
    co_await writer->close();
  } catch (const StorageError& error) {
    co_return error.code();
  }
  co_return std::error_code();
}

struct Confirming {
  const char* name;
  Task<void> (*run)(SQLiteStorage& storage);
};

/// What acknowledges that "a" stands at 10'000, without moving it.
constexpr Confirming k_confirming[] = {
    {"an append of no bytes",
     [](SQLiteStorage& s) -> Task<void> { co_await append_test_bytes(s, "a", 1, 10'000, 0); }},
    {"a writer that writes nothing",
     [](SQLiteStorage& s) -> Task<void> {
       const std::unique_ptr<UploadWriter> writer = co_await s.open_writer("a", {.offset = 10'000});
       co_await writer->close();
     }},
    {"update_offset",
     [](SQLiteStorage& s) -> Task<void> { co_await s.update_offset("a", 10'000); }},
    {"update_offset_atomic",
     [](SQLiteStorage& s) -> Task<void> { co_await s.update_offset_atomic("a", 10'000, 10'000); }},
};

}  // namespace

TEST_CASE_METHOD(ProtocolFixture, "A4: a sync that failed commits nothing and is not repeated") {
  const int code = GENERATE(EIO, ENOSPC, EDQUOT);
  const bool done = GENERATE(false, true);
  const std::size_t size = GENERATE(as<std::size_t>{}, 100, k_mib + 100);
  const bool set_aside = GENERATE(false, true);
  CAPTURE(code, done, size, set_aside);
  // On blocks that were set aside a write may be stable by itself.
  create_at("a", k_begin, set_aside ? std::optional(k_begin + size) : std::nullopt);
  int attempts = 0;
  environment.on_submit([&](const Operation& operation, std::uint64_t) {
    if (!makes_stable(operation, "a") || ++attempts > 1) return Fault::none();
    return done ? Fault::done_but_answer(-code) : Fault::answer(-code);
  });
  CHECK(append_error("a", k_begin, size) == meaning_of(code));
  environment.on_submit(nullptr);
  CHECK(attempts == 1);
  check_upload("a", k_begin);
  CHECK(append("a", k_begin, size) == committed(k_begin + size, set_aside));
  check_upload("a", k_begin + size);
}

TEST_CASE_METHOD(ProtocolFixture, "A4: a stable write that failed commits nothing") {
  const int code = GENERATE(EIO, ENOSPC);
  const bool done = GENERATE(false, true);
  create("a", 3 * k_mib);
  REQUIRE(append("a", 0, k_mib) == committed(k_mib));
  const Fault fault = done ? Fault::done_but_answer(-code) : Fault::answer(-code);
  environment.on_submit(first_of(Kind::write, "a", 1, fault));
  CHECK(append_error("a", k_mib, k_mib) == meaning_of(code));
  environment.on_submit(nullptr);
  check_and_finish("a", k_mib, 3 * k_mib);
}

TEST_CASE_METHOD(ProtocolFixture, "A4: what another wrote is given up when its sync failed") {
  foreign.create("a", 30'000);
  foreign.append("a", 1, 0, 10'000);
  create("other", 100);
  environment.on_submit(first_of(Kind::sync, "a", 1, Fault::answer(-EIO)));
  CHECK(append_error("a", 10'000, 100) == Errc::io_error);
  environment.on_submit(nullptr);

  // Its bytes may be lost, and no later sync would say so.
  const OperationLog log(environment);
  CHECK(append_error("a", 10'000, 100) == Errc::io_error);
  CHECK(error_of((**this).open_writer("a")) == Errc::io_error);
  const Bytes bytes = test_bytes(1, 10'000, 100);
  wait((**this).get_upload("a"));
  CHECK(error_of((**this).write_chunk("a", 10'000, bytes)) == Errc::io_error);
  CHECK(log.count(Kind::write, "a") == 0);
  CHECK(log.whole_syncs("a") == 0);
  CHECK(foreign.offset("a") == 10'000);
  CHECK_FALSE(is_locked(path("a")));
  CHECK(append("other", 0, 100) == committed(100, true));
}

TEST_CASE_METHOD(ProtocolFixture, "A4: a failed sync of chunks is not made good by another one") {
  const bool by_sync = GENERATE(false, true);
  create("a", std::nullopt);
  const Bytes bytes = test_bytes(1, 0, 10'000);
  wait((**this).write_chunk("a", 0, bytes));
  environment.on_submit(first_of(Kind::sync, "a", 1, Fault::answer(-EIO)));
  const std::error_code error =
      by_sync ? error_of((**this).sync("a")) : error_of((**this).update_offset("a", 10'000));
  CHECK(error == Errc::io_error);
  environment.on_submit(nullptr);
  // The kernel may have dropped the bytes; the next sync succeeds all the same.
  CHECK(error_of((**this).update_offset("a", 10'000)) == Errc::io_error);
  CHECK(foreign.offset("a") == 0);
}

TEST_CASE_METHOD(ProtocolFixture, "A4: chunks that an append failed to sync are given up") {
  create("a", std::nullopt);
  const Bytes bytes = test_bytes(1, 0, 10'000);
  wait((**this).write_chunk("a", 0, bytes));
  environment.on_submit(first_of(Kind::sync, "a", 1, Fault::answer(-EIO)));
  CHECK(append_error("a", 0, 100) == Errc::io_error);
  environment.on_submit(nullptr);
  // The kernel may have dropped the chunk as well; the next sync succeeds all the same.
  CHECK(error_of((**this).sync("a")) == Errc::io_error);
  CHECK(error_of((**this).update_offset("a", 10'000)) == Errc::io_error);
  CHECK(foreign.offset("a") == 0);
}

TEST_CASE_METHOD(ProtocolFixture, "A4: chunks of another process are synced before their row") {
  create("a", std::nullopt);
  {
    ProtocolStore other(folder.path());
    const Bytes bytes = test_bytes(1, 0, 10'000);
    other.wait((*other).write_chunk("a", 0, bytes));
  }
  const OperationLog log(environment);
  wait((**this).update_offset("a", 10'000));
  CHECK(log.whole_syncs("a") == 1);
  check_upload("a", 10'000);
}

TEST_CASE_METHOD(ProtocolFixture, "A4: an offset of others is acknowledged once it is stable") {
  for (const Confirming& confirming : k_confirming) {
    DYNAMIC_SECTION(confirming.name) {
      foreign.create("a", 30'000);
      foreign.append("a", 1, 0, 10'000);
      SECTION("and synced once") {
        const OperationLog log(environment);
        for (int i = 0; i < 2; ++i) CHECK_FALSE(error_of(confirming.run(**this)));
        CHECK(append("a", 10'000, 100) == committed(10'100));
        CHECK(log.whole_syncs("a") == 1);
      }
      SECTION("or given up") {
        environment.on_submit(first_of(Kind::sync, "a", 1, Fault::answer(-EIO)));
        for (int i = 0; i < 2; ++i) CHECK(error_of(confirming.run(**this)) == Errc::io_error);
      }
    }
  }
}

TEST_CASE_METHOD(ProtocolFixture, "A4: an upload that was given up is written by a new storage") {
  foreign.create("a", 30'000);
  foreign.append("a", 1, 0, 10'000);
  environment.on_submit(first_of(Kind::sync, "a", 1, Fault::answer(-EIO)));
  CHECK(append_error("a", 10'000, 100) == Errc::io_error);
  environment.on_submit(nullptr);
  SECTION("opened anew") {
    close();
    open();
    check_and_finish("a", 10'000, 30'000);
  }
  SECTION("or deleted and made again") {
    wait((**this).delete_upload("a"));
    CHECK_FALSE(std::filesystem::exists(path("a")));
    create("a", 30'000);
    check_and_finish("a", 0, 30'000);
  }
}

TEST_CASE_METHOD(ProtocolFixture,
                 "A4: a failed sync of the file system fails all that it was for") {
  // The kernel tells of a lost page once: also who has written before, and syncs later, is told.
  create("written", 1000);
  const std::unique_ptr<UploadWriter> writer = wait((**this).open_writer("written"));
  REQUIRE(wait(write_bytes(**this, *writer, 100)));
  std::vector<UploadId> ids;
  for (std::size_t i = 0; i < k_uploads; ++i) ids.emplace_back("u" + std::to_string(i));
  for (const UploadId& id : ids) create(id, std::nullopt);
  // The first sync is held until all others wait for the next round.
  std::size_t syncs = 0;
  std::size_t writes = 0;
  const OperationLog log(environment, [&](const Operation& operation, std::uint64_t) {
    if (operation.kind == Kind::sync_filesystem) return Fault::answer(-EIO);
    if (operation.kind == Kind::sync && ++syncs == 1) return Fault::hold_result();
    if (operation.kind == Kind::write && ++writes == k_uploads) return Fault::hold_result();
    return Fault::none();
  });
  std::vector<Task<std::error_code>> tasks;
  for (const UploadId& id : ids) tasks.push_back(write_outcome(**this, id, k_size));
  const auto running = start(when_all(std::move(tasks)));
  CHECK(running->wait_until_held(2));
  environment.release();
  const std::vector<std::error_code> outcomes = running->get();
  CHECK(log.count(Kind::sync_filesystem) > 0);
  environment.on_submit(nullptr);
  std::size_t failed = 0;
  for (std::size_t i = 0; i < k_uploads; ++i) {
    CAPTURE(i);
    if (outcomes[i]) CHECK(outcomes[i] == Errc::io_error);
    failed += outcomes[i] ? 1 : 0;
    check_upload(ids[i], outcomes[i] ? 0 : k_size);
    if (outcomes[i]) CHECK(append(ids[i], 0, k_size) == committed(k_size));
    check_upload(ids[i], k_size);
  }
  CHECK(failed >= k_uploads / 2);
  CHECK(error_of(writer->close()) == Errc::io_error);
  check_and_finish("written", 0, 1000);
}

TEST_CASE_METHOD(ProtocolFixture, "writes that are cut short go on") {
  const std::uint64_t most = GENERATE(as<std::uint64_t>{}, 7, 511, 512, 4095, 4096, 4097, 65535);
  CAPTURE(most);
  const std::uint64_t size = std::min<std::uint64_t>(300'000, 1'000 * most);
  create_at("a", k_begin, k_begin + 2 * size);
  for (int i = 0; i < 2; ++i) {
    const std::uint64_t offset = static_cast<std::uint64_t>(foreign.offset("a"));
    environment.on_submit([=](const Operation& operation, std::uint64_t) {
      return operation.kind == Kind::write ? Fault::shorten(most) : Fault::none();
    });
    CHECK(append("a", offset, size).offset == offset + size);
    environment.on_submit(nullptr);
    check_upload("a", offset + size);
  }
}

TEST_CASE_METHOD(ProtocolFixture, "a write of nothing is an error, not an endless loop") {
  create_at("a", k_begin, 10'000);
  environment.on_submit(first_of(Kind::write, "a", 1, Fault::answer(0)));
  CHECK(append_error("a", k_begin, 100) == Errc::io_error);
  environment.on_submit(nullptr);
  check_and_finish("a", k_begin, 10'000);
}

TEST_CASE_METHOD(ProtocolFixture, "an interruption at any step changes nothing") {
  const std::size_t size = GENERATE(as<std::size_t>{}, 100, k_mib + 100);
  std::uint64_t steps = 1;
  for (bool reached = true; reached; ++steps) {
    CAPTURE(steps);
    const UploadId id("a" + std::to_string(steps));
    create_at(id, k_begin, k_begin + size);
    environment.on_submit(at_step(steps, Fault::answer(-EINTR)));
    CHECK(append(id, k_begin, size) == committed(k_begin + size, true));
    reached = environment.count() >= steps;
    environment.on_submit(nullptr);
    check_upload(id, k_begin + size);
  }
  CHECK(steps > 5);
}

TEST_CASE_METHOD(ProtocolFixture, "what is not possible now is tried again") {
  const Kind kind = GENERATE(Kind::write, Kind::lock);
  create_at("a", k_begin, 10'000);
  environment.on_submit(first_of(kind, "a", 3, Fault::answer(-EAGAIN)));
  CHECK(append("a", k_begin, 100) == committed(k_begin + 100));
  environment.on_submit(nullptr);
  check_and_finish("a", k_begin + 100, 10'000);
}

TEST_CASE_METHOD(ProtocolFixture,
                 "whichever step of an append fails, nothing acknowledged is lost") {
  const int code = GENERATE(EIO, ENOSPC, EDQUOT, EROFS);
  const bool done = GENERATE(false, true);
  const std::size_t size = GENERATE(as<std::size_t>{}, 100, 2 * k_mib + 100);
  CAPTURE(code, done, size);
  const Fault fault = done ? Fault::done_but_answer(-code) : Fault::answer(-code);
  std::uint64_t step = 1;
  for (bool reached = true; reached; ++step) {
    CAPTURE(step);
    const UploadId id("a" + std::to_string(step));
    create_at(id, k_begin, k_begin + size);
    PlainFile(path(id)).write(k_begin + size, test_bytes(9, 0, 10));  // There is a truncation, too.
    environment.on_submit(at_step(step, fault));
    const std::error_code error = append_error(id, k_begin, size);
    reached = environment.count() >= step;
    environment.on_submit(nullptr);
    if (error) CHECK(error == meaning_of(code));
    if (!reached) CHECK_FALSE(error);
    check_and_finish(id, error ? k_begin : k_begin + size, k_begin + size);
    check_nothing_left();
  }
  CHECK(step > 5);
}

TEST_CASE_METHOD(ProtocolFixture, "whichever step of a create fails, the id is taken or free") {
  const int code = GENERATE(EIO, ENOSPC);
  const bool done = GENERATE(false, true);
  const Fault fault = done ? Fault::done_but_answer(-code) : Fault::answer(-code);
  std::uint64_t step = 1;
  for (bool reached = true; reached; ++step) {
    CAPTURE(step);
    const UploadId id("a" + std::to_string(step));
    environment.on_submit(at_step(step, fault));
    const std::error_code error = error_of((**this).create_upload(id, 10'000, Metadata()));
    reached = environment.count() >= step;
    environment.on_submit(nullptr);
    if (error) {
      CHECK(error == meaning_of(code));
      const bool is_there = foreign.has_row(id.view());
      CHECK_FALSE(is_there);
      if (!is_there) create(id, 10'000);
    }
    check_and_finish(id, 0, 10'000);
    check_nothing_left();
  }
  CHECK(step > 4);
}

TEST_CASE_METHOD(ProtocolFixture, "whichever step of a delete fails, it can be done again") {
  const int code = GENERATE(EIO, ENOSPC);
  const bool done = GENERATE(false, true);
  const Fault fault = done ? Fault::done_but_answer(-code) : Fault::answer(-code);
  std::uint64_t step = 1;
  for (bool reached = true; reached; ++step) {
    CAPTURE(step);
    const UploadId id("a" + std::to_string(step));
    create_at(id, k_begin, 10'000);
    environment.on_submit(at_step(step, fault));
    const std::error_code error = error_of((**this).delete_upload(id));
    reached = environment.count() >= step;
    environment.on_submit(nullptr);
    if (!reached) CHECK_FALSE(error);
    if (foreign.has_row(id.view())) {
      CHECK(error);
      CHECK(std::filesystem::exists(path(id)));  // Never a row without its bytes.
      check_and_finish(id, k_begin, 10'000);
    }
    wait((**this).delete_upload(id));
    CHECK_FALSE(wait((**this).get_upload(id)).has_value());
    CHECK_FALSE(std::filesystem::exists(path(id)));
    check_nothing_left();
  }
  CHECK(step > 3);
}

TEST_CASE_METHOD(ProtocolFixture, "a file system without fallocate is no obstacle") {
  environment.on_submit(first_of(Kind::allocate, "a", 1, Fault::answer(-EOPNOTSUPP)));
  create("a", 10'000);
  environment.on_submit(nullptr);
  check_and_finish("a", 0, 10'000);
}

TEST_CASE_METHOD(ProtocolFixture, "a create that finds no room leaves nothing") {
  environment.on_submit(first_of(Kind::allocate, "a", 1, Fault::answer(-ENOSPC)));
  CHECK(error_of((**this).create_upload("a", 10'000, Metadata())) == Errc::no_space);
  environment.on_submit(nullptr);
  CHECK_FALSE(foreign.has_row("a"));
  CHECK_FALSE(std::filesystem::exists(path("a")));
  create("a", 10'000);
  check_and_finish("a", 0, 10'000);
}

TEST_CASE_METHOD(ProtocolFixture, "a write that finds the disk full keeps none of it") {
  create("a", 5 * k_mib);
  const std::unique_ptr<UploadWriter> writer = wait((**this).open_writer("a"));
  const Bytes bytes = test_bytes(1, 0, 3 * k_mib);
  environment.on_submit([](const Operation& operation, std::uint64_t) {
    const bool late = operation.kind == Kind::write && operation.offset >= 2 * k_mib;
    return late ? Fault::answer(-ENOSPC) : Fault::none();
  });
  CHECK(error_of(writer->write(bytes)) == Errc::no_space);
  CHECK(error_of(writer->close()) == Errc::no_space);
  environment.on_submit(nullptr);
  check_and_finish("a", 0, 5 * k_mib);
}
