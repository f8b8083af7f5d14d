// Durability::ordered and Durability::none of SQLiteStorage: A4 and A5 of the design, later or not
// at all.

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <tidemark/engine/sleep_for.hpp>

#include "log_vfs.hpp"
#include "sqlite_protocol.hpp"

using namespace tidemark;
using namespace tidemark::test;
using namespace std::chrono_literals;
using Kind = Operation::Kind;

namespace {

constexpr std::size_t k_mib = std::size_t{1} << 20;
constexpr std::uint64_t k_length = 64 * k_mib;
constexpr AppendOptions k_ordered{.durability = Durability::ordered};

Fault hold_stable(const Operation& operation, std::uint64_t) {
  return makes_stable(operation, "a") ? Fault::hold_result() : Fault::none();
}

struct OrderedFixture : ProtocolFixture {
  std::uint64_t answered(UploadId id) { return wait((**this).get_upload(id))->offset; }
  std::uint64_t in_row(UploadId id) {
    return static_cast<std::uint64_t>(foreign.offset(id.view()));
  }
  /// Blocks until the storage has let the upload go.
  void wait_for_lock(UploadId id) { PlainFile(path(id)).lock(); }
  /// Lets timers that are due by now fire.
  void wake() {
    wait([](Executor&) -> Task<void> { co_await schedule(); }(executor));
  }
};

struct Operations {
  const char* name;
  Task<void> (*run)(SQLiteStorage& storage);
};

/// What needs the upload "a" as it is, and so settles it first. All leave its offset at 100.
constexpr Operations k_settling[] = {
    {"a writer",
     [](SQLiteStorage& s) -> Task<void> {
       const std::unique_ptr<UploadWriter> writer = co_await s.open_writer("a", {.offset = 100});
       co_await writer->close();
     }},
    {"a full append",
     [](SQLiteStorage& s) -> Task<void> {
       co_await append_test_bytes(s, "a", 1, 100, 0, {.durability = Durability::full});
     }},
    {"update_offset", [](SQLiteStorage& s) -> Task<void> { co_await s.update_offset("a", 100); }},
    {"update_offset_atomic",
     [](SQLiteStorage& s) -> Task<void> { co_await s.update_offset_atomic("a", 100, 100); }},
    {"sync", [](SQLiteStorage& s) -> Task<void> { co_await s.sync("a"); }},
    {"write_chunk",
     [](SQLiteStorage& s) -> Task<void> {
       const Bytes bytes(1);
       co_await s.write_chunk("a", 100, bytes);
     }},
    {"a conflict elsewhere",
     [](SQLiteStorage& s) -> Task<void> {
       co_await append_test_bytes(s, "a", 9, 7, 10, {.durability = Durability::full});
     }},
    {"close", [](SQLiteStorage& s) -> Task<void> { co_await s.close(60s); }},
};

}  // namespace

TEST_CASE_METHOD(OrderedFixture,
                 "ordered: answered before any sync, and kept locked until the row") {
  const std::size_t size = GENERATE(as<std::size_t>{}, 100, k_mib + 5);
  environment.slow_down();  // Nothing is settled because a second is over.
  create("a", k_length);
  const OperationLog log(environment, &hold_stable);
  CHECK(append("a", 0, size, k_ordered) == committed(size));
  CHECK(append("a", size, size, k_ordered) == committed(2 * size));
  CHECK(log.whole_syncs("a") == 0);
  CHECK(answered("a") == 2 * size);
  const UploadPage page = wait((**this).list_uploads(std::nullopt, 10));
  CHECK(page.uploads.front().offset == 2 * size);
  CHECK(in_row("a") == 0);
  CHECK(is_locked(path("a")));
  CHECK(append("a", 7, 1, k_ordered) ==
        AppendResult{AppendStatus::offset_conflict, 2 * size, false});

  // Settled: stable, then in the row, then free.
  const auto settling = start((**this).update_offset("a", 2 * size));
  int held = 0;
  while (settling->wait_until_held()) {
    ++held;
    drain();
    CHECK(in_row("a") == 0);
    CHECK(is_locked(path("a")));
    CHECK(answered("a") == 2 * size);
    environment.release();
  }
  CHECK(held > 0);
  CHECK_FALSE(settling->error());
  environment.on_submit(nullptr);
  check_upload("a", 2 * size);
}

TEST_CASE_METHOD(OrderedFixture, "ordered: another operation settles first") {
  for (const Operations& operation : k_settling) {
    DYNAMIC_SECTION(operation.name) {
      environment.slow_down();
      create("a", k_length);
      CHECK(append("a", 0, 100, k_ordered) == committed(100));
      CHECK(in_row("a") == 0);
      wait(operation.run(**this));
      CHECK(in_row("a") == 100);
      CHECK_FALSE(is_locked(path("a")));
      close();
      open();
      check_upload("a", 100);
    }
  }
}

TEST_CASE_METHOD(OrderedFixture, "ordered: a delete, a read and a cleanup find what was answered") {
  environment.slow_down();
  create("a", k_length);
  append("a", 0, 100, k_ordered);
  SECTION("delete") {
    wait((**this).delete_upload("a"));
    CHECK_FALSE(foreign.has_row("a"));
    CHECK_FALSE(std::filesystem::exists(path("a")));
    create("a", 10);
    check_and_finish("a", 0, 10);
  }
  SECTION("reading") {
    CHECK(wait((**this).read_file("a", 1000)) == test_bytes(1, 0, 100));
    CHECK(wait((**this).wait_for_offset("a", 99)) == 100);
  }
  SECTION("reading on") {
    const std::unique_ptr<UploadReader> reader = wait((**this).open_reader("a"));
    append("a", 100, 100, k_ordered);
    CHECK(in_row("a") == 100);
    CHECK(wait((**this).wait_for_offset("a", 100)) == 200);
    std::vector<std::byte> bytes(100);
    CHECK(wait(reader->read_at(100, bytes)) == 100);
    CHECK(bytes == test_bytes(1, 100, 100));
  }
  SECTION("cleanup") {
    wait((**this).set_expiry("a", environment.system_now() + 1s));
    environment.advance(2s);
    CHECK(wait((**this).cleanup_expired_uploads()) == 0);  // It is being written.
    CHECK(answered("a") == 100);
    wait((**this).sync("a"));
    CHECK(wait((**this).cleanup_expired_uploads()) == 1);
    CHECK_FALSE(foreign.has_row("a"));
    CHECK_FALSE(std::filesystem::exists(path("a")));
  }
}

TEST_CASE_METHOD(OrderedFixture, "ordered: completion is full") {
  create("a", 2000, environment.system_now() + 1h);
  PlainFile(path("a")).write(0, test_bytes(9, 0, 3000));
  CHECK(append("a", 0, 1000, k_ordered) == committed(1000));
  environment.on_submit(&hold_stable);
  const auto running = start_append("a", 1000, 1000, k_ordered);
  int held = 0;
  while (running->wait_until_held()) {
    ++held;
    drain();
    CHECK(in_row("a") == 0);
    environment.release();
  }
  CHECK(held > 0);
  CHECK(running->get() == committed(2000, true));
  environment.on_submit(nullptr);
  check_upload("a", 2000);
  CHECK_FALSE(foreign.ask("expires_at", "a").has_value());
  CHECK(std::filesystem::file_size(path("a")) == 2000);
}

TEST_CASE_METHOD(OrderedFixture, "ordered: full while another process may tell the length") {
  create("a", std::nullopt);
  CHECK(append("a", 0, 100, k_ordered) == committed(100));
  CHECK(in_row("a") == 100);
  CHECK_FALSE(is_locked(path("a")));
  wait((**this).set_length("a", 1000));
  CHECK(append("a", 100, 100, k_ordered) == committed(200));
  CHECK(in_row("a") == 100);
}

TEST_CASE_METHOD(OrderedFixture, "ordered: nobody waits for an append that has answered nothing") {
  create("a", k_length);
  PlainFile other(path("a"));
  other.lock();
  const auto appending = start(append_test_bytes(**this, "a", 1, 0, 100, k_ordered));
  CHECK(wait((**this).read_file("a", 100)).empty());
  other.unlock();
  CHECK(appending->get() == committed(100));
}

TEST_CASE_METHOD(OrderedFixture, "ordered: who waits for an upload of others waits no longer") {
  create("a", k_length);
  PlainFile other(path("a"));
  other.lock();
  const std::chrono::seconds timeout =
      std::chrono::duration_cast<std::chrono::seconds>(options().lock_timeout);
  const TimePoint begin = environment.now();
  std::vector<std::unique_ptr<RunningTask<AppendResult>>> appends;
  for (int i = 0; i < 8; ++i) appends.push_back(start_append("a", 0, 100, k_ordered));
  wake();
  environment.seconds_ahead += static_cast<int>(timeout.count()) + 1;
  wake();
  CHECK(appends.front()->error() == Errc::lock_timeout);
  // Perhaps one waits for the lock since then; the others waited for the first.
  wake();
  environment.seconds_ahead += static_cast<int>(timeout.count()) + 1;
  wake();
  for (std::size_t i = 1; i < appends.size(); ++i) {
    CHECK(appends[i]->error() == Errc::lock_timeout);
  }
  CHECK(environment.now() - begin < 3 * timeout);
}

TEST_CASE_METHOD(OrderedFixture, "ordered: settled after 8 MiB") {
  environment.slow_down();
  create("a", k_length);
  std::uint64_t offset = 0;
  for (; offset < 8 * k_mib; offset += k_mib) {
    CHECK(in_row("a") == 0);
    CHECK(append("a", offset, k_mib, k_ordered) == committed(offset + k_mib));
  }
  wait_for_lock("a");
  check_upload("a", offset);
}

TEST_CASE_METHOD(OrderedFixture, "ordered: settled after a second") {
  create("a", k_length);
  CHECK(append("a", 0, 100, k_ordered) == committed(100));
  environment.seconds_ahead = 1;
  wake();
  wait_for_lock("a");
  check_upload("a", 100);
  // The next one has a second of its own.
  CHECK(append("a", 100, 100, k_ordered) == committed(200));
  CHECK(in_row("a") == 100);
  environment.seconds_ahead = 2;
  wake();
  wait_for_lock("a");
  check_upload("a", 200);
}

TEST_CASE_METHOD(OrderedFixture, "ordered: a settling that failed answers the true offset again") {
  create_at("a", 100, 10'000);
  CHECK(append("a", 100, 100, k_ordered) == committed(200));
  environment.on_submit(first_of(Kind::sync, "a", 1, Fault::answer(-EIO)));
  environment.seconds_ahead = 1;
  wake();
  environment.lines.wait(0);
  environment.on_submit(nullptr);
  CHECK(answered("a") == 100);
  CHECK(append("a", 200, 100, k_ordered) ==
        AppendResult{AppendStatus::offset_conflict, 100, false});
  check_and_finish("a", 100, 10'000);
}

TEST_CASE_METHOD(OrderedFixture, "ordered: an append that fails takes back nothing answered") {
  create("a", k_length);
  CHECK(append("a", 0, 100, k_ordered) == committed(100));
  environment.on_submit(first_of(Kind::write, "a", 1, Fault::answer(-ENOSPC)));
  CHECK(append_error("a", 100, 100, k_ordered) == Errc::no_space);
  environment.on_submit(nullptr);
  CHECK(answered("a") == 100);
  CHECK(append("a", 100, 100, k_ordered) == committed(200));
  wait((**this).sync("a"));
  check_upload("a", 200);
}

TEST_CASE_METHOD(OrderedFixture,
                 "ordered: an append that is too long or refused takes back nothing") {
  create("a", 150, environment.system_now() + 1h);
  CHECK(append("a", 0, 100, k_ordered) == committed(100));
  CHECK(append_error("a", 100, 51, k_ordered) == Errc::length_exceeded);
  CHECK(append("a", 99, 1, k_ordered).status == AppendStatus::offset_conflict);
  CHECK(answered("a") == 100);
  wait((**this).sync("a"));
  check_and_finish("a", 100, 150);
  CHECK(append_error("a", 150, 1, k_ordered) == Errc::already_complete);
  CHECK(append_error("none", 0, 1, k_ordered) == Errc::not_found);
  check_nothing_left();
}

TEST_CASE_METHOD(OrderedFixture, "ordered: an append that is stopped tells what is true") {
  create("a", k_length);
  CHECK(append("a", 0, 100, k_ordered) == committed(100));
  environment.on_submit(first_of(Kind::write, "a", 1, Fault::hold()));
  const auto running = start_append("a", 100, 3 * k_mib, k_ordered);
  REQUIRE(running->wait_until_held());
  running->request_stop();
  environment.release();
  const AppendResult result = running->get();
  environment.on_submit(nullptr);
  CHECK(result.status == AppendStatus::canceled);
  CHECK(result.offset >= 100);
  CHECK(answered("a") == result.offset);
  wait((**this).sync("a"));
  check_upload("a", result.offset);
}

TEST_CASE_METHOD(OrderedFixture, "ordered: a newer writer takes over") {
  create("a", k_length);
  CHECK(append("a", 0, 100, k_ordered) == committed(100));
  std::unique_ptr<UploadWriter> first = wait((**this).open_writer("a"));
  CHECK(first->offset() == 100);
  const std::unique_ptr<UploadWriter> second =
      wait((**this).open_writer("a", {.offset = 100, .take_over = true}));
  CHECK(wait(first->close()) == AppendResult{AppendStatus::taken_over, 100, false});
  CHECK(wait(write_bytes(**this, *second, 100)));
  CHECK(wait(second->close()) == committed(200));
  check_upload("a", 200);
}

TEST_CASE_METHOD(OrderedFixture, "ordered: a checksum is asked before anything is answered") {
  class Refusal final : public Checksum {
   public:
    void update(std::span<const std::byte>) override {}
    bool matches() override { return false; }
  };
  create("a", k_length);
  CHECK(append("a", 0, 100, k_ordered) == committed(100));
  Refusal refusal;
  CHECK(append("a", 100, 100, {.durability = Durability::ordered, .checksum = &refusal}) ==
        AppendResult{AppendStatus::checksum_mismatch, 100, false});
  wait((**this).sync("a"));
  check_upload("a", 100);
}

TEST_CASE_METHOD(OrderedFixture, "ordered: many uploads, and the storage closes on them") {
  environment.slow_down();
  for (int i = 0; i < 50; ++i) {
    const UploadId id("u" + std::to_string(i));
    create(id, k_length);
    for (std::uint64_t offset = 0; offset < 300; offset += 100) {
      REQUIRE(append(id, offset, 100, k_ordered) == committed(offset + 100));
    }
    CHECK(in_row(id) == 0);
  }
  close();
  for (int i = 0; i < 50; ++i) CHECK(in_row("u" + std::to_string(i)) == 300);
  open();
  for (int i = 0; i < 50; ++i) check_upload("u" + std::to_string(i), 300);
}

TEST_CASE_METHOD(SqliteFolder, "none: nothing is ever synced") {
  LogVfs vfs;
  ProtocolStore store(folder.path(),
                      {.durability = Durability::none, .sqlite_vfs = LogVfs::k_name});
  vfs.on_call(nullptr);
  const OperationLog log(store.environment);
  store.create("a", 3 * k_mib);
  store.append("a", 0, 100);
  const std::unique_ptr<UploadWriter> writer = store.wait((*store).open_writer("a"));
  CHECK(store.wait(write_buffer(*store, *writer, k_mib)));
  CHECK(store.wait(writer->commit()) == committed(k_mib + 100));
  CHECK(store.wait(writer->close()) == committed(k_mib + 100));
  store.append("a", k_mib + 100, 2 * k_mib - 100);
  const Metadata empty;
  store.wait((*store).concatenate("whole", {"a"}, empty));
  store.wait((*store).delete_upload("whole"));
  const std::vector<LoggedOperation> all = log.all();
  CHECK(std::ranges::none_of(all, [](const LoggedOperation& operation) {
    return operation.kind == Kind::sync || operation.kind == Kind::sync_filesystem ||
           (operation.kind == Kind::write && (operation.flags & RWF_DSYNC) != 0);
  }));
  CHECK(vfs.syncs() == 0);
  store.check_upload("a", 3 * k_mib);
}

TEST_CASE_METHOD(OrderedFixture, "none: one append of many is not synced, and the next one is") {
  create("a", k_length);
  const OperationLog log(environment);
  CHECK(append("a", 0, 100, {.durability = Durability::none}) == committed(100));
  CHECK(log.whole_syncs("a") == 0);
  CHECK(append("a", 100, 100) == committed(200));
  CHECK(log.whole_syncs("a") == 1);
  check_upload("a", 200);
}
