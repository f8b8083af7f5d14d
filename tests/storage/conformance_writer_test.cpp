// Conformance of Storage: UploadWriter, but for take-over.

#include <limits>
#include <thread>

#include <tidemark/engine/sync_wait.hpp>
#include <tidemark/io/buffer.hpp>

#include "conformance.hpp"

using namespace tidemark;
using namespace tidemark::test;
using namespace std::chrono_literals;

namespace {

using Writer = std::unique_ptr<UploadWriter>;

AppendResult committed(std::uint64_t offset, bool completed = false) {
  return {AppendStatus::committed, offset, completed};
}

/// Writes the test bytes of seed 1 that come next.
Task<bool> write_next(UploadWriter& writer, std::size_t count) {
  const Bytes bytes = test_bytes(1, writer.offset(), count);
  co_return co_await writer.write(bytes);
}

Task<void> whole_upload(World& world) {
  co_await create(world, "a", 10'000);
  Writer writer = co_await world.storage.open_writer("a", {.offset = 0});
  CHECK(writer->offset() == 0);
  CHECK_FALSE(writer->stop_token().stop_requested());
  bool taken = co_await write_next(*writer, 3000);
  CHECK(taken);
  CHECK(writer->offset() == 3000);
  AppendResult result = co_await writer->commit();
  CHECK(result == committed(3000));
  co_await check_content(world, "a", 1, 3000);
  result = co_await writer->commit();
  CHECK(result == committed(3000));

  taken = co_await write_next(*writer, 0);
  CHECK(taken);
  taken = co_await write_next(*writer, 3000);
  CHECK(taken);
  taken = co_await write_next(*writer, 4000);
  CHECK(taken);
  result = co_await writer->close();
  CHECK(result == committed(10'000, true));
  co_await check_content(world, "a", 1, 10'000);

  // After the end.
  taken = co_await write_next(*writer, 1);
  CHECK_FALSE(taken);
  result = co_await writer->commit();
  CHECK(result == committed(10'000, true));
  result = co_await writer->close();
  CHECK(result == committed(10'000, true));
}

Task<void> continued(World& world) {
  co_await create(world, "a", 100);
  for (std::uint64_t offset = 0; offset < 100; offset += 20) {
    Writer writer = co_await world.storage.open_writer("a");
    CHECK(writer->offset() == offset);
    const bool taken = co_await write_next(*writer, 20);
    CHECK(taken);
    const AppendResult result = co_await writer->close();
    CHECK(result == committed(offset + 20, offset == 80));
  }
  co_await check_content(world, "a", 1, 100);
}

Task<void> buffers(World& world) {
  constexpr std::size_t k_bytes = 70'000;
  BufferPool pool(world.executor(), std::size_t{1} << 20);
  co_await create(world, "a", 10 * k_bytes + 5);
  Writer writer = co_await world.storage.open_writer("a");
  for (int i = 0; i < 11; ++i) {
    Buffer buffer = co_await pool.acquire(k_bytes);
    buffer.resize(i == 10 ? 5 : k_bytes);
    fill_test_bytes(buffer.bytes(), 1, writer->offset());
    const bool taken = co_await writer->write(std::move(buffer));
    CHECK(taken);
  }
  const AppendResult result = co_await writer->close();
  CHECK(result == committed(10 * k_bytes + 5, true));
  co_await check_content(world, "a", 1, 10 * k_bytes + 5);
  CHECK(pool.bytes_in_use() == 0);
}

Task<void> conflict_from_the_start(World& world) {
  co_await create(world, "a", 10);
  {
    Writer writer = co_await world.storage.open_writer("a", {.offset = 3});
    const bool taken = co_await write_next(*writer, 1);
    CHECK_FALSE(taken);
    const AppendResult result = co_await writer->close();
    CHECK(result == AppendResult{AppendStatus::offset_conflict, 0, false});
  }
  Writer ended = co_await world.storage.open_writer("a", {.offset = 3});
  Writer writer = co_await world.storage.open_writer("a", {.offset = 0});  // Nobody holds it.
  const AppendResult result = co_await writer->close();
  CHECK(result == committed(0));
}

Task<void> errors_of_open(World& world) {
  Storage& storage = world.storage;
  co_await create_finished(world, "finished", 1, 5);
  co_await create(world, "late", 10, world.clock.system_now() + 1s);
  world.clock.advance(2s);
  std::error_code error = co_await error_of(storage.open_writer("none"));
  CHECK(error == Errc::not_found);
  error = co_await error_of(storage.open_writer("finished", {.offset = 2}));
  CHECK(error == Errc::already_complete);
  error = co_await error_of(storage.open_writer("late", {.offset = 2}));
  CHECK(error == Errc::expired);
  co_await create(world, "a", 10);
  for (const std::uint64_t offset :
       {Storage::k_max_length + 1, std::numeric_limits<std::uint64_t>::max()}) {
    error = co_await error_of(storage.open_writer("a", {.offset = offset}));
    CHECK(error == Errc::invalid_argument);
  }
  Writer writer = co_await storage.open_writer("a", {.offset = Storage::k_max_length});
  const AppendResult result = co_await writer->close();
  CHECK(result == AppendResult{AppendStatus::offset_conflict, 0, false});
}

Task<void> too_many_bytes(World& world) {
  co_await create(world, "a", 10);
  Writer writer = co_await world.storage.open_writer("a");
  bool taken = co_await write_next(*writer, 4);
  CHECK(taken);
  const std::error_code error = co_await error_of(write_next(*writer, 7));
  CHECK(error == Errc::length_exceeded);
  CHECK(writer->offset() == 4);
  taken = co_await write_next(*writer, 5);
  CHECK(taken);
  const AppendResult result = co_await writer->close();
  CHECK(result == committed(9));
  co_await check_content(world, "a", 1, 9);
}

Task<void> length_told_meanwhile(World& world) {
  co_await create(world, "a", std::nullopt);
  Writer writer = co_await world.storage.open_writer("a");
  bool taken = co_await write_next(*writer, 4);
  CHECK(taken);
  AppendResult result = co_await writer->commit();
  CHECK(result == committed(4));
  co_await world.storage.set_length("a", 7);
  taken = co_await write_next(*writer, 3);
  CHECK(taken);
  result = co_await writer->close();
  CHECK(result == committed(7, true));
  co_await check_content(world, "a", 1, 7);
}

Task<void> checksums(World& world) {
  co_await create(world, "a", 10);
  ByteChecksum right(test_bytes(1, 0, 10));
  Writer writer = co_await world.storage.open_writer("a", {.checksum = &right});
  bool taken = co_await write_next(*writer, 6);
  CHECK(taken);
  AppendResult result = co_await writer->commit();
  CHECK(result == committed(0));
  co_await check_content(world, "a", 1, 0);
  taken = co_await write_next(*writer, 4);
  CHECK(taken);
  CHECK(right.asked() == 0);
  result = co_await writer->close();
  CHECK(result == committed(10, true));
  CHECK(right.asked() == 1);
  co_await check_content(world, "a", 1, 10);

  co_await create(world, "b", 10);
  ByteChecksum wrong(test_bytes(2, 0, 10));
  writer = co_await world.storage.open_writer("b", {.checksum = &wrong});
  taken = co_await write_next(*writer, 10);
  CHECK(taken);
  result = co_await writer->close();
  CHECK(result == AppendResult{AppendStatus::checksum_mismatch, 0, false});
  co_await check_content(world, "b", 1, 0);
}

/// Writes, is destroyed after so many steps, and leaves what it should.
Task<void> destroy_after(World& world, int steps, bool with_checksum) {
  const UploadId id("d" + std::to_string(steps) + (with_checksum ? "c" : "p"));
  co_await create(world, id, 10);
  ByteChecksum checksum(test_bytes(1, 0, 10));
  Writer writer =
      co_await world.storage.open_writer(id, {.checksum = with_checksum ? &checksum : nullptr});
  std::uint64_t kept = 0;
  for (int step = 0; step < steps; ++step) {
    if (step % 2 == 0) {
      const bool taken = co_await write_next(*writer, 2);
      CHECK(taken);
    } else {
      co_await writer->commit();
    }
  }
  if (!with_checksum) kept = writer->offset();
  writer.reset();
  writer = co_await world.storage.open_writer(id);
  CHECK(writer->offset() == kept);
  const AppendResult result = co_await writer->close();
  CHECK(result == committed(kept));
  co_await check_content(world, id, 1, kept);
}

Task<void> destroyed(World& world) {
  for (int steps = 0; steps < 5; ++steps) {
    co_await destroy_after(world, steps, false);
    co_await destroy_after(world, steps, true);
  }
  // After it has ended on its own.
  co_await create(world, "ended", 10);
  { const Writer writer = co_await world.storage.open_writer("ended", {.offset = 5}); }
  Writer writer = co_await world.storage.open_writer("ended", {.offset = 0});
  // With the storage itself, which its close waits for.
  const bool taken = co_await write_next(*writer, 2);
  CHECK(taken);
  writer.reset();
}

/// Counts what it is given after it may be gone.
class MortalChecksum final : public Checksum {
 public:
  void update(std::span<const std::byte>) override { late_ += is_over_ ? 1 : 0; }
  bool matches() override { return true; }
  void end() { is_over_ = true; }
  int late() const { return late_; }

 private:
  bool is_over_ = false;
  int late_ = 0;
};

Task<void> destroyed_with_a_buffer(World& world) {
  constexpr std::size_t k_bytes = 70'000;
  BufferPool pool(world.executor(), std::size_t{1} << 20);
  co_await create(world, "a", k_bytes);
  MortalChecksum checksum;
  Writer writer = co_await world.storage.open_writer("a", {.checksum = &checksum});
  Buffer buffer = co_await pool.acquire(k_bytes);
  fill_test_bytes(buffer.bytes(), 1, 0);
  const bool taken = co_await writer->write(std::move(buffer));
  CHECK(taken);
  writer.reset();  // While the buffer is on its way.
  checksum.end();
  writer = co_await world.storage.open_writer("a");
  CHECK(writer->offset() == 0);
  CHECK(checksum.late() == 0);
  co_await writer->close();
}

Task<void> destroyed_elsewhere(World& world) {
  co_await create(world, "a", 10);
  Writer writer = co_await world.storage.open_writer("a");
  const bool taken = co_await write_next(*writer, 2);
  CHECK(taken);
  std::thread([moved = std::move(writer)] {}).join();
  writer = co_await world.storage.open_writer("a", {.offset = 2});
  const AppendResult result = co_await writer->close();
  CHECK(result == committed(2));
}

Task<void> use_and_drop(World& world, UploadId id, std::stop_token token) {
  co_await create(world, id, 9'000'000);
  std::uint64_t least = 0;
  std::uint64_t most = 0;
  try {
    Writer writer = co_await with_stop(world.storage.open_writer(id), token);
    for (int i = 0; i < 3; ++i) {
      const bool taken = co_await with_stop(write_next(*writer, 1'500'000), token);
      if (!taken) break;
      const AppendResult result = co_await with_stop(writer->commit(), token);
      least = result.offset;
    }
    most = writer->offset();
  } catch (const std::system_error& error) {
    CHECK(error.code() == std::errc::operation_canceled);  // Only while it was opened.
  }
  Writer writer = co_await world.storage.open_writer(id);
  const std::uint64_t offset = writer->offset();
  CHECK(offset >= least);
  CHECK(offset <= most);
  co_await writer->close();
  co_await check_content(world, id, 1, offset);
  co_await world.storage.delete_upload(id);
}

Task<void> stop_between_writes(World& world, UploadId id, std::stop_token token) {
  co_await create(world, id, 9'000'000);
  std::optional<AppendResult> result;
  bool went_on = true;
  try {
    Writer writer = co_await with_stop(world.storage.open_writer(id), token);
    for (int i = 0; i < 4 && went_on; ++i) {
      went_on = co_await with_stop(write_next(*writer, 2'000'000), token);
    }
    result = co_await writer->close();
    CHECK(result->status == (went_on ? AppendStatus::committed : AppendStatus::canceled));
    CHECK(result->offset <= 8'000'000);
  } catch (const std::system_error& error) {
    CHECK(error.code() == std::errc::operation_canceled);
  }
  co_await check_content(world, id, 1, result ? result->offset : 0);
  Writer next = co_await world.storage.open_writer(id);
  co_await next->close();
  co_await world.storage.delete_upload(id);
}

Task<void> stopped(World& world) {
  const std::size_t attempts = co_await stop_at_every_point(world, use_and_drop);
  CHECK(attempts > 2);
  co_await stop_at_every_point(world, stop_between_writes);
}

Task<void> open_into(World& world, UploadId id, Writer& writer, WriterOptions options = {}) {
  writer = co_await world.storage.open_writer(id, options);
}

Task<void> request_stop(std::stop_source source) {
  for (int turn = 0; turn < 10; ++turn) co_await schedule();
  source.request_stop();
}

Task<void> stopped_while_waiting(World& world) {
  co_await create(world, "a", 10);
  Writer first = co_await world.storage.open_writer("a");
  std::stop_source source;
  Writer second;
  auto waiting = error_of(with_stop(open_into(world, "a", second), source.get_token()));
  const auto results = co_await when_all(std::move(waiting), request_stop(source));
  CHECK(std::get<0>(results) == std::errc::operation_canceled);
  CHECK(second == nullptr);

  source = std::stop_source();
  const Bytes bytes = test_bytes(1, 0, 5);
  auto appending = with_stop(world.storage.append("a", 0, bytes), source.get_token());
  const auto answers = co_await when_all(std::move(appending), request_stop(source));
  CHECK(std::get<0>(answers) == AppendResult{AppendStatus::canceled, 0, false});
  co_await first->close();
  const AppendResult result = co_await world.storage.append("a", 0, bytes);
  CHECK(result == committed(5));
}

Task<void> delete_and_close(World& world, Writer& writer) {
  for (int turn = 0; turn < 10; ++turn) co_await schedule();
  // Which of the two comes first is the backend's: a delete may wait for the writer.
  co_await when_all(error_of(world.storage.delete_upload("a")), error_of(writer->close()));
}

Task<void> deleted_while_waiting(World& world) {
  co_await create(world, "a", 10);
  Writer first = co_await world.storage.open_writer("a");
  const bool taken = co_await write_next(*first, 3);
  CHECK(taken);
  Writer second;
  const Bytes bytes = test_bytes(1, 0, 5);
  const auto results = co_await when_all(error_of(open_into(world, "a", second)),
                                         error_of(world.storage.append("a", 0, bytes)),
                                         delete_and_close(world, first));
  second.reset();
  // Each came before the delete or found nothing.
  for (const std::error_code& error : {std::get<0>(results), std::get<1>(results)}) {
    CHECK((!error || error == Errc::not_found));
  }
  const std::optional<Upload> none = co_await world.storage.get_upload("a");
  CHECK_FALSE(none.has_value());
}

}  // namespace

TEST_CASE("a writer writes an upload") {
  on_every_backend(whole_upload);
}
TEST_CASE("a writer continues where the upload stands") {
  on_every_backend(continued);
}
TEST_CASE("a writer takes buffers") {
  on_every_backend(buffers);
}
TEST_CASE("a writer at another offset has ended from the start") {
  on_every_backend(conflict_from_the_start);
}
TEST_CASE("a writer cannot be opened for what takes no bytes") {
  on_every_backend(errors_of_open);
}
TEST_CASE("a writer refuses more bytes than there is room for, and goes on") {
  on_every_backend(too_many_bytes);
}
TEST_CASE("a writer learns a length that is told meanwhile") {
  on_every_backend(length_told_meanwhile);
}
TEST_CASE("a writer with a checksum commits at its end or never") {
  on_every_backend(checksums);
}
TEST_CASE("a destroyed writer is closed, and another can follow") {
  on_every_backend(destroyed);
}
TEST_CASE("the checksum of a destroyed writer is left alone") {
  on_every_backend(destroyed_with_a_buffer);
}
TEST_CASE("a writer may be destroyed in any thread") {
  on_every_backend(destroyed_elsewhere);
}
TEST_CASE("a writer that is stopped at any point leaves the true offset and no lock") {
  on_every_backend(stopped);
}
TEST_CASE("who waits for a writer can be stopped") {
  on_every_backend(stopped_while_waiting);
}
TEST_CASE("who waits for a writer while the upload is deleted finds nothing") {
  on_every_backend(deleted_while_waiting);
}
