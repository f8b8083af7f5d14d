// The append protocol of SQLiteStorage, step by step: A1 to A6 of the design.

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <memory>
#include <numeric>
#include <optional>
#include <string>
#include <vector>

#include <tidemark/io/file.hpp>

#include "sqlite_protocol.hpp"

using namespace tidemark;
using namespace tidemark::test;
using namespace std::chrono_literals;
using Kind = Operation::Kind;

namespace {

constexpr std::size_t k_mib = std::size_t{1} << 20;
constexpr std::size_t k_sizes[] = {1,        511,   512,       4095,  4096,      4097,
                                   65535,    65536, 65536 + 1, k_mib, k_mib - 1, 3 * k_mib + 17,
                                   k_mib + 1};

/// Whether the writes to one file are all within [begin, end), without a gap, and the direct ones
/// aligned.
bool fill_exactly(const std::vector<LoggedOperation>& writes, std::uint64_t begin,
                  std::uint64_t end) {
  std::uint64_t filled = begin;
  for (const LoggedOperation& write : writes) {
    const bool inside = write.offset >= begin && write.offset <= filled && write.end() <= end;
    const bool aligned = write.offset % k_direct_alignment == 0 &&
                         write.length % k_direct_alignment == 0 &&
                         write.memory % k_direct_memory_alignment == 0;
    if (!inside || (write.direct && !aligned)) return false;
    filled = std::max(filled, write.end());
  }
  return filled == end;
}

/// Holds the results of what makes "a" stable, so that a test can look in between.
Fault hold_stable(const Operation& operation, std::uint64_t) {
  return makes_stable(operation, "a") ? Fault::hold_result() : Fault::none();
}

/// Holds the results of syncs of the whole file "a" only.
Fault hold_whole_sync(const Operation& operation, std::uint64_t) {
  const bool whole = operation.kind != Kind::write && makes_stable(operation, "a");
  return whole ? Fault::hold_result() : Fault::none();
}

/// Remembers where the row stood when it was asked.
class LookingChecksum final : public Checksum {
 public:
  LookingChecksum(ForeignProgram& foreign, bool answer) : foreign_(foreign), answer_(answer) {}
  void update(std::span<const std::byte> bytes) override { bytes_ += bytes.size(); }
  bool matches() override {
    offset_then = foreign_.offset("a");
    return answer_ && bytes_ > 0;
  }
  std::int64_t offset_then = -1;

 private:
  ForeignProgram& foreign_;
  const bool answer_;
  std::size_t bytes_ = 0;
};

}  // namespace

TEST_CASE_METHOD(ProtocolFixture, "A3: no append writes below the committed offset") {
  const Durability durability = GENERATE(Durability::full, Durability::ordered, Durability::none);
  create("a", std::nullopt);
  std::uint64_t offset = 0;
  for (int round = 0; round < 2; ++round) {
    for (const std::size_t size : k_sizes) {
      CAPTURE(offset, size);
      const OperationLog log(environment);
      REQUIRE(append("a", offset, size, {.durability = durability}) == committed(offset + size));
      CHECK(fill_exactly(log.of(Kind::write, "a"), offset, offset + size));
      offset += size;
    }
  }
  wait((**this).sync("a"));
  check_upload("a", offset);
}

TEST_CASE_METHOD(ProtocolFixture, "A3: no writer writes below what it has committed") {
  const bool in_buffers = GENERATE(false, true);
  create("a", std::nullopt);
  std::unique_ptr<UploadWriter> writer = wait((**this).open_writer("a"));
  std::uint64_t offset = 0;
  bool any_direct = false;
  for (int round = 0; round < 2; ++round) {
    for (const std::size_t size : k_sizes) {
      CAPTURE(offset, size);
      const OperationLog log(environment);
      REQUIRE(wait(in_buffers ? write_buffer(**this, *writer, size)
                              : write_bytes(**this, *writer, size)));
      REQUIRE(wait(writer->commit()) == committed(offset + size));
      const std::vector<LoggedOperation> writes = log.of(Kind::write, "a");
      CHECK(fill_exactly(writes, offset, offset + size));
      offset += size;
      any_direct = any_direct || std::ranges::any_of(writes, &LoggedOperation::direct);
    }
  }
  CHECK(wait(writer->close()) == committed(offset));
  check_upload("a", offset);
  if (in_buffers) CHECK(any_direct);
}

TEST_CASE_METHOD(ProtocolFixture, "A2: the row is read under the lock") {
  create("a", 300);
  PlainFile other(path("a"));
  REQUIRE(other.try_lock());
  // At the third try for the lock another writer is done, and unlocks.
  int tries = 0;
  const OperationLog log(environment, [&](const Operation& operation, std::uint64_t) {
    if (operation.kind == Kind::lock && name_of(operation) == "a" && ++tries == 3) {
      foreign.append("a", 1, 0, 100);
      other.unlock();
    }
    return Fault::none();
  });
  CHECK(wait(append_test_bytes(**this, "a", 9, 0, 200)) ==
        AppendResult{AppendStatus::offset_conflict, 100, false});
  CHECK(log.count(Kind::write) == 0);
  check_and_finish("a", 100, 300);
}

TEST_CASE_METHOD(ProtocolFixture, "A4, A5: an append is stable, then in its row, then answered") {
  const std::size_t size = GENERATE(as<std::size_t>{}, 1, 4096, 5000, k_mib, k_mib + 1);
  const std::uint64_t begin = GENERATE(as<std::uint64_t>{}, 0, 10, 4096);
  CAPTURE(size, begin);
  create("a", std::nullopt);
  if (begin > 0) append("a", 0, begin);
  drain();
  environment.on_submit(&hold_stable);
  const auto running = start_append("a", begin, size);
  int held = 0;
  while (running->wait_until_held()) {
    ++held;
    drain();
    CHECK(static_cast<std::uint64_t>(foreign.offset("a")) == begin);
    environment.release();
  }
  CHECK(held > 0);
  CHECK(running->get() == committed(begin + size));
  environment.on_submit(nullptr);
  check_upload("a", begin + size);
}

TEST_CASE_METHOD(ProtocolFixture, "A4: a commit of another's unsynced bytes waits for their sync") {
  const std::size_t size = GENERATE(as<std::size_t>{}, 1, 4096, k_mib);
  CAPTURE(size);
  foreign.create("a", -1);
  foreign.append("a", 1, 0, 8192);
  drain();
  const OperationLog log(environment, &hold_whole_sync);
  const auto running = start_append("a", 8192, size);
  int held = 0;
  while (running->wait_until_held()) {
    ++held;
    drain();
    CHECK(foreign.offset("a") == 8192);
    environment.release();
  }
  CHECK(held > 0);
  CHECK(running->get() == committed(8192 + size));
  // Its name may be as new as its bytes.
  CHECK(log.whole_syncs("uploads") > 0);
}

TEST_CASE_METHOD(ProtocolFixture,
                 "A4: another's bytes are synced once, and when there are new ones") {
  constexpr std::uint64_t k_step = k_mib / 8;  // So much is stable when its write returns.
  foreign.create("a", -1);
  foreign.append("a", 1, 0, 4096);
  OperationLog log(environment);
  std::uint64_t offset = 4096;
  const auto syncs_of_next = [&] {
    log.clear();
    REQUIRE(append("a", offset, k_step) == committed(offset + k_step));
    offset += k_step;
    return log.whole_syncs("a");
  };
  const std::size_t first = syncs_of_next();
  const std::size_t second = syncs_of_next();
  CHECK(second < first);

  foreign.append("a", 1, offset, 4096);
  offset += 4096;
  CHECK(syncs_of_next() == first);
  CHECK(syncs_of_next() == second);

  // Our own bytes that were never synced are no better.
  append("a", offset, 4096, {.durability = Durability::none});
  offset += 4096;
  CHECK(syncs_of_next() == first);
  CHECK(syncs_of_next() == second);
}

TEST_CASE_METHOD(ProtocolFixture,
                 "A4: what was stable in another file of that name does not count") {
  create("a", std::nullopt);
  OperationLog log(environment);
  append("a", 0, k_mib);
  log.clear();
  append("a", k_mib, k_mib);
  const std::size_t usual = log.whole_syncs("a");
  std::filesystem::remove(path("a"));
  PlainFile(path("a"), O_RDWR | O_CREAT).write(0, test_bytes(1, 0, 2 * k_mib));
  log.clear();
  REQUIRE(append("a", 2 * k_mib, k_mib) == committed(3 * k_mib));
  CHECK(log.whole_syncs("a") > usual);
  check_upload("a", 3 * k_mib);
}

TEST_CASE_METHOD(ProtocolFixture, "A4: update_offset makes bytes stable before it commits them") {
  const bool atomic = GENERATE(false, true);
  create("a", 10'000);
  const Bytes bytes = test_bytes(1, 0, 10'000);
  wait((**this).write_chunk("a", 0, bytes));
  drain();
  environment.on_submit(&hold_stable);
  const auto run = [](SQLiteStorage& storage, bool in_one) -> Task<void> {
    if (!in_one) co_return co_await storage.update_offset("a", 10'000);
    const bool moved = co_await storage.update_offset_atomic("a", 0, 10'000);
    if (!moved) throw StorageError(Errc::invalid_argument, "test", "a", "it did not move");
  };
  const auto running = start(run(**this, atomic));
  int held = 0;
  while (running->wait_until_held()) {
    ++held;
    drain();
    CHECK(foreign.offset("a") == 0);
    environment.release();
  }
  CHECK(held > 0);
  CHECK_FALSE(running->error());
  environment.on_submit(nullptr);
  check_upload("a", 10'000);
}

TEST_CASE_METHOD(ProtocolFixture, "a created upload has a stable name before its row") {
  drain();
  environment.on_submit([](const Operation& operation, std::uint64_t) {
    return makes_stable(operation, "uploads") ? Fault::hold_result() : Fault::none();
  });
  const auto running = start((**this).create_upload("a", 10, Metadata()));
  REQUIRE(running->wait_until_held());
  drain();
  CHECK(std::filesystem::exists(path("a")));
  CHECK_FALSE(foreign.has_row("a"));
  while (running->wait_until_held()) environment.release();
  CHECK_FALSE(running->error());
  environment.on_submit(nullptr);
  check_and_finish("a", 0, 10);
}

TEST_CASE_METHOD(ProtocolFixture,
                 "a file without a row is made empty by a create, under its lock") {
  write_contents(path("a"), std::string(5000, 'x'));
  {
    PlainFile other(path("a"));
    REQUIRE(other.try_lock());
    int tries = 0;
    environment.on_submit([&](const Operation& operation, std::uint64_t) {
      if (operation.kind == Kind::lock && name_of(operation) == "a" && ++tries == 3) other.unlock();
      return Fault::none();
    });
    create("a", 10'000);
    CHECK(tries >= 3);
  }
  environment.on_submit(nullptr);
  CHECK(std::filesystem::file_size(path("a")) == 0);
  check_and_finish("a", 0, 10'000);
}

TEST_CASE_METHOD(ProtocolFixture, "a file that a create makes empty is so after a power cut") {
  write_contents(path("a"), "left over");
  OperationLog log(environment);
  create("a", 0);  // Complete at once: no append syncs it.
  const std::vector<LoggedOperation> all = log.all();
  const auto find = [&](Operation::Kind kind) {
    return std::ranges::find_if(all, [kind](const LoggedOperation& operation) {
      return operation.kind == kind && operation.name == "a";
    });
  };
  // Another file, whose name is stable before its row: the leftover's bytes come back with neither.
  REQUIRE(find(Operation::Kind::unlink) != all.end());
  CHECK(std::any_of(find(Operation::Kind::unlink), all.end(), [](const LoggedOperation& operation) {
    return operation.kind == Operation::Kind::sync && operation.name != "a";
  }));
  check_upload("a", 0);
}

TEST_CASE_METHOD(ProtocolFixture, "a reader of a file that was left over sees none of the next") {
  create("a", 10);
  CHECK(append("a", 0, 5) == committed(5));
  const std::unique_ptr<UploadReader> reader = wait((**this).open_reader("a"));
  foreign.exec("DELETE FROM uploads WHERE upload_id = 'a'");
  create("a", 10);
  CHECK(wait(append_test_bytes(**this, "a", 2, 0, 10)) == committed(10, true));
  Bytes bytes(5);
  CHECK(wait(reader->read_at(0, bytes)) == 5);
  CHECK(bytes == test_bytes(1, 0, 5));
}

TEST_CASE_METHOD(ProtocolFixture, "A5: a commit that lost its compare answers the true offset") {
  const std::size_t size = GENERATE(as<std::size_t>{}, 100, k_mib);
  create("a", std::nullopt);
  environment.on_submit(first_of(Kind::write, "a", 1, Fault::hold_result()));
  const auto running = start_append("a", 0, size);
  REQUIRE(running->wait_until_held());
  foreign.move_to("a", 50);
  environment.release();
  CHECK(running->get() == AppendResult{AppendStatus::offset_conflict, 50, false});
  check_upload("a", 50);
}

TEST_CASE_METHOD(ProtocolFixture, "A5: a commit whose row is gone finds nothing") {
  create("a", std::nullopt);
  environment.on_submit(first_of(Kind::write, "a", 1, Fault::hold_result()));
  const auto running = start_append("a", 0, 100);
  REQUIRE(running->wait_until_held());
  foreign.exec("DELETE FROM uploads WHERE upload_id = 'a'");
  environment.release();
  CHECK(running->error() == Errc::not_found);
  CHECK_FALSE(foreign.has_row("a"));
  CHECK_FALSE(is_locked(path("a")));
}

TEST_CASE_METHOD(ProtocolFixture,
                 "A5: the completing append cuts what is too long, and ends expiry") {
  const bool in_writer = GENERATE(false, true);
  create("a", 10'000, environment.system_now() + 1h);
  append("a", 0, 3000);
  CHECK(foreign.ask("expires_at", "a").has_value());
  PlainFile(path("a")).write(3000, test_bytes(7, 0, 20'000));  // As a writer that lost leaves it.
  drain();
  environment.on_submit(first_of(Kind::truncate, "a", 1, Fault::hold_result()));
  const auto finish = [](SQLiteStorage& storage, bool writer_too) -> Task<AppendResult> {
    if (!writer_too) co_return co_await append_test_bytes(storage, "a", 1, 3000, 7000);
    const std::unique_ptr<UploadWriter> writer = co_await storage.open_writer("a");
    co_await write_bytes(storage, *writer, 7000);
    co_return co_await writer->close();
  };
  const auto running = start(finish(**this, in_writer));
  REQUIRE(running->wait_until_held());
  drain();
  CHECK(foreign.offset("a") == 3000);
  CHECK(std::filesystem::file_size(path("a")) == 10'000);
  environment.release();
  CHECK(running->get() == committed(10'000, true));
  CHECK_FALSE(foreign.ask("expires_at", "a").has_value());
  CHECK(foreign.ask("completed", "a") == "1");
  CHECK(std::filesystem::file_size(path("a")) == 10'000);
  check_upload("a", 10'000);
}

TEST_CASE_METHOD(ProtocolFixture, "A5: all that completes an upload cuts what is too long") {
  const std::string how = GENERATE("set_length", "update_offset", "update_offset_atomic");
  CAPTURE(how);
  create("a", how == "set_length" ? std::nullopt : std::optional<std::uint64_t>(10'000),
         environment.system_now() + 1h);
  if (how == "set_length") {
    append("a", 0, 10'000);
    PlainFile(path("a")).write(10'000, test_bytes(7, 0, 20'000));
    wait((**this).set_length("a", 10'000));
  } else {
    PlainFile(path("a")).write(0, test_bytes(1, 0, 20'000));
    if (how == "update_offset") {
      wait((**this).update_offset("a", 10'000));
    } else {
      CHECK(wait((**this).update_offset_atomic("a", 0, 10'000)));
    }
  }
  CHECK(std::filesystem::file_size(path("a")) == 10'000);
  CHECK_FALSE(foreign.ask("expires_at", "a").has_value());
  check_upload("a", 10'000);
}

TEST_CASE_METHOD(ProtocolFixture,
                 "A5: a length that is told to a writer's upload cuts it as well") {
  create("a", std::nullopt);
  PlainFile(path("a")).write(0, test_bytes(9, 0, 500));
  const std::unique_ptr<UploadWriter> writer = wait((**this).open_writer("a"));
  CHECK(wait(write_bytes(**this, *writer, 100)));
  SECTION("at its end") {
    wait((**this).set_length("a", 100));
    CHECK(wait(writer->close()) == committed(100, true));
    CHECK(std::filesystem::file_size(path("a")) == 100);
    check_upload("a", 100);
  }
  SECTION("below it") {
    wait((**this).set_length("a", 99));
    CHECK(error_of(writer->close()) == Errc::length_exceeded);
    check_and_finish("a", 0, 99);
  }
  SECTION("above it") {
    wait((**this).set_length("a", 101));
    CHECK(wait(writer->close()) == committed(100));
    check_and_finish("a", 100, 101);
  }
}

TEST_CASE_METHOD(ProtocolFixture, "A6: the lock is free when the answer is there") {
  create("a", std::nullopt);
  for (std::uint64_t i = 0; i < 100; ++i) {
    REQUIRE(append("a", i, 1) == committed(i + 1));
    REQUIRE_FALSE(is_locked(path("a")));
  }
  CHECK(append("a", 7, 1).status == AppendStatus::offset_conflict);
  CHECK_FALSE(is_locked(path("a")));
  LookingChecksum wrong(foreign, false);
  CHECK(append("a", 100, 1, {.checksum = &wrong}).status == AppendStatus::checksum_mismatch);
  CHECK_FALSE(is_locked(path("a")));
  const std::unique_ptr<UploadWriter> writer = wait((**this).open_writer("a"));
  CHECK(is_locked(path("a")));
  wait(writer->close());
  CHECK_FALSE(is_locked(path("a")));
  wait((**this).set_length("a", 100));
  CHECK_FALSE(is_locked(path("a")));
  CHECK(append_error("a", 100, 1) == Errc::already_complete);
  CHECK_FALSE(is_locked(path("a")));
}

TEST_CASE_METHOD(ProtocolFixture, "with a checksum nothing is committed before it matched") {
  const std::size_t size = GENERATE(as<std::size_t>{}, 10, 3 * k_mib + 17);
  create("a", size);
  LookingChecksum right(foreign, true);
  CHECK(append("a", 0, size, {.checksum = &right}) == committed(size, true));
  CHECK(right.offset_then == 0);
  check_upload("a", size);
}

TEST_CASE_METHOD(ProtocolFixture,
                 "a writer that is abandoned before its checksum matched keeps none") {
  create("a", 3 * k_mib);
  LookingChecksum checksum(foreign, true);
  std::unique_ptr<UploadWriter> writer = wait((**this).open_writer("a", {.checksum = &checksum}));
  CHECK(wait(write_buffer(**this, *writer, k_mib)));
  CHECK(wait(writer->commit()) == committed(0));
  writer.reset();
  writer = wait((**this).open_writer("a", {.offset = 0}));
  CHECK(writer->offset() == 0);
  CHECK(checksum.offset_then == -1);
  wait(writer->close());
  check_and_finish("a", 0, 3 * k_mib);
}
