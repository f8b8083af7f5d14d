// Appends and writers of SQLiteStorage that end before their time: A1, A5 and A6 of the design.

#include <cstddef>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "sqlite_protocol.hpp"

using namespace tidemark;
using namespace tidemark::test;
using namespace std::chrono_literals;
using Kind = Operation::Kind;

namespace {

constexpr std::size_t k_mib = std::size_t{1} << 20;
constexpr std::uint64_t k_begin = 5000;

class AnyChecksum final : public Checksum {
 public:
  void update(std::span<const std::byte>) override {}
  bool matches() override { return true; }
};

}  // namespace

TEST_CASE_METHOD(ProtocolFixture,
                 "an append that is asked to stop at any step leaves what is true") {
  const bool done = GENERATE(false, true);
  const bool with_checksum = GENERATE(false, true);
  const std::size_t size = GENERATE(as<std::size_t>{}, 100, 3 * k_mib);
  CAPTURE(done, with_checksum, size);
  const std::uint64_t end = k_begin + size;
  int canceled = 0;
  std::uint64_t step = 1;
  for (bool held = true; held; ++step) {
    CAPTURE(step);
    const UploadId id("a" + std::to_string(step));
    create_at(id, k_begin, end);
    AnyChecksum checksum;
    environment.on_submit(at_step(step, done ? Fault::hold_result() : Fault::hold()));
    const auto running =
        start_append(id, k_begin, size, {.checksum = with_checksum ? &checksum : nullptr});
    held = running->wait_until_held();
    running->request_stop();
    environment.release();
    const AppendResult result = running->get();
    environment.on_submit(nullptr);
    if (!held || result.status == AppendStatus::committed) {
      CHECK(result == committed(end, true));
    } else {
      ++canceled;
      CHECK(result.status == AppendStatus::canceled);
      CHECK_FALSE(result.completed);
      CHECK(result.offset >= k_begin);
      if (with_checksum) CHECK(result.offset == k_begin);
    }
    check_and_finish(id, result.offset, end);
    check_nothing_left();
  }
  CHECK(canceled > 1);
}

TEST_CASE_METHOD(ProtocolFixture,
                 "an append that is stopped between its writes keeps the first ones") {
  create_at("a", k_begin, 10 * k_mib);
  environment.on_submit([writes = 0](const Operation& operation, std::uint64_t) mutable {
    const bool third = operation.kind == Kind::write && ++writes == 3;
    return third ? Fault::hold() : Fault::none();
  });
  const auto running = start_append("a", k_begin, 5 * k_mib);
  REQUIRE(running->wait_until_held());
  running->request_stop();
  environment.release();
  const AppendResult result = running->get();
  environment.on_submit(nullptr);
  CHECK(result.status == AppendStatus::canceled);
  CHECK(result.offset > k_begin);
  check_and_finish("a", result.offset, 10 * k_mib);
}

TEST_CASE_METHOD(ProtocolFixture, "an append that waits for another process can be stopped") {
  create_at("a", k_begin, 10'000);
  PlainFile other(path("a"));
  REQUIRE(other.try_lock());
  environment.on_submit(first_of(Kind::lock, "a", 1, Fault::hold_result()));
  const auto running = start_append("a", k_begin, 100);
  REQUIRE(running->wait_until_held());
  environment.release();
  running->request_stop();
  CHECK(running->get() == AppendResult{AppendStatus::canceled, k_begin, false});
  other.unlock();
  check_and_finish("a", k_begin, 10'000);
}

TEST_CASE_METHOD(SqliteFolder, "an append that waits too long for another process gives up") {
  ProtocolStore store(folder.path(), {.lock_timeout = 1ms});
  store.create("a", 10'000);
  PlainFile other(store.path("a"));
  REQUIRE(other.try_lock());
  CHECK(store.append_error("a", 0, 100) == Errc::lock_timeout);
  CHECK(store.error_of((*store).open_writer("a")) == Errc::lock_timeout);
  CHECK(store.error_of((*store).delete_upload("a")) == Errc::lock_timeout);
  CHECK(store.foreign.has_row("a"));
  other.unlock();
  store.check_and_finish("a", 0, 10'000);
}

TEST_CASE_METHOD(SqliteFolder, "an append that waits too long for a writer of its own gives up") {
  ProtocolStore store(folder.path(), {.lock_timeout = 1ms});
  store.create("a", 10'000);
  const std::unique_ptr<UploadWriter> writer = store.wait((*store).open_writer("a"));
  CHECK(store.append_error("a", 0, 100) == Errc::lock_timeout);
  CHECK(store.wait(writer->close()) == committed(0));
  store.check_and_finish("a", 0, 10'000);
}

TEST_CASE_METHOD(ProtocolFixture, "a writer is destroyed at any step of its end") {
  const bool done = GENERATE(false, true);
  const bool with_checksum = GENERATE(false, true);
  CAPTURE(done, with_checksum);
  AnyChecksum checksum;
  std::uint64_t step = 1;
  for (bool held = true; held; ++step) {
    CAPTURE(step);
    const UploadId id("a" + std::to_string(step));
    create_at(id, k_begin, 3 * k_mib);
    std::unique_ptr<UploadWriter> writer =
        wait((**this).open_writer(id, {.checksum = with_checksum ? &checksum : nullptr}));
    environment.on_submit(at_step(step, done ? Fault::hold_result() : Fault::hold()));
    CHECK(wait(write_buffer(**this, *writer, k_mib)));  // It may still be on its way.
    writer.reset();
    const auto next = start((**this).open_writer(id));
    held = next->wait_until_held();
    environment.release();
    writer = next->get();
    environment.on_submit(nullptr);
    const std::uint64_t kept = with_checksum ? k_begin : k_begin + k_mib;
    CHECK(writer->offset() == kept);
    wait(writer->close());
    writer.reset();
    check_and_finish(id, kept, 3 * k_mib);
    check_nothing_left();
  }
  CHECK(step > 3);
}

TEST_CASE_METHOD(ProtocolFixture, "a storage closes after who waits for an offset or an upload") {
  create("a", 10);
  create("b", 10);
  std::unique_ptr<UploadWriter> writer = wait((**this).open_writer("b"));
  const auto waiting = start((**this).wait_for_offset("a", 0));
  const auto second = start((**this).append("b", 0, {}));
  const auto closing = start((**this).close(60s));
  writer.reset();
  closing->get();
  close();
  CHECK(waiting->error() == Errc::shutting_down);
  CHECK(second->get() == committed(0));
}

TEST_CASE_METHOD(ProtocolFixture, "a storage is closed while a destroyed writer ends") {
  std::uint64_t step = 1;
  for (bool held = true; held; ++step) {
    CAPTURE(step);
    const UploadId id("a" + std::to_string(step));
    create_at(id, k_begin, 3 * k_mib);
    std::unique_ptr<UploadWriter> writer = wait((**this).open_writer(id));
    environment.on_submit(at_step(step, Fault::hold_result()));
    CHECK(wait(write_buffer(**this, *writer, k_mib)));
    writer.reset();
    {
      const auto closing = start((**this).close(60s));
      held = closing->wait_until_held();
      if (held) CHECK_FALSE(closing->is_done());
      environment.release();
      CHECK_FALSE(closing->error());
    }
    environment.on_submit(nullptr);
    close();
    open();
    check_and_finish(id, k_begin + k_mib, 3 * k_mib);
  }
  CHECK(step > 3);
}

TEST_CASE_METHOD(ProtocolFixture,
                 "A1: who waits while an upload is deleted elsewhere finds nothing") {
  const bool in_writer = GENERATE(false, true);
  create_at("a", k_begin, 10'000);
  PlainFile other(path("a"));
  REQUIRE(other.try_lock());
  environment.on_submit([&, tries = 0](const Operation& operation, std::uint64_t) mutable {
    if (operation.kind == Kind::lock && name_of(operation) == "a" && ++tries == 3) {
      foreign.exec("DELETE FROM uploads WHERE upload_id = 'a'");
      std::filesystem::remove(path("a"));
      other.unlock();
    }
    return Fault::none();
  });
  if (in_writer) {
    CHECK(error_of((**this).open_writer("a")) == Errc::not_found);
  } else {
    CHECK(append_error("a", k_begin, 100) == Errc::not_found);
  }
  environment.on_submit(nullptr);
  CHECK_FALSE(std::filesystem::exists(path("a")));
  CHECK_FALSE(foreign.has_row("a"));
}

TEST_CASE_METHOD(ProtocolFixture,
                 "A1: who waits while an upload is made anew elsewhere takes the new") {
  create("a", 10'000);
  PlainFile other(path("a"));
  REQUIRE(other.try_lock());
  environment.on_submit([&, tries = 0](const Operation& operation, std::uint64_t) mutable {
    if (operation.kind == Kind::lock && name_of(operation) == "a" && ++tries == 3) {
      foreign.exec("DELETE FROM uploads WHERE upload_id = 'a'");
      std::filesystem::remove(path("a"));
      foreign.create("a", 10'000);
      other.unlock();
    }
    return Fault::none();
  });
  CHECK(append("a", 0, 100) == committed(100));
  environment.on_submit(nullptr);
  check_and_finish("a", 100, 10'000);
}
