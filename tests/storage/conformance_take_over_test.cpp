// Conformance of Storage: a newer writer ends the present one and those who wait.

#include <algorithm>

#include "conformance.hpp"

using namespace tidemark;
using namespace tidemark::test;

namespace {

using Writer = std::unique_ptr<UploadWriter>;

/// Writes the test bytes of seed 1 that come next.
Task<bool> write_next(UploadWriter& writer, std::size_t count) {
  const Bytes bytes = test_bytes(1, writer.offset(), count);
  co_return co_await writer.write(bytes);
}

Task<void> idle_writer(World& world) {
  co_await create(world, "a", 100);
  Writer older = co_await world.storage.open_writer("a");
  bool taken = co_await write_next(*older, 10);
  CHECK(taken);
  const std::stop_token asked = older->stop_token();
  CHECK_FALSE(asked.stop_requested());

  // The older one does nothing that would end it.
  Writer newer = co_await world.storage.open_writer("a", {.take_over = true});
  CHECK(asked.stop_requested());
  CHECK(newer->offset() == 10);
  taken = co_await write_next(*older, 10);
  CHECK_FALSE(taken);
  AppendResult result = co_await older->close();
  CHECK(result == AppendResult{AppendStatus::taken_over, 10, false});
  result = co_await older->commit();
  CHECK(result == AppendResult{AppendStatus::taken_over, 10, false});
  older.reset();

  CHECK_FALSE(newer->stop_token().stop_requested());
  taken = co_await write_next(*newer, 90);
  CHECK(taken);
  result = co_await newer->close();
  CHECK(result == AppendResult{AppendStatus::committed, 100, true});
  co_await check_content(world, "a", 1, 100);
}

Task<void> nobody_there(World& world) {
  co_await create(world, "a", 100);
  Writer writer = co_await world.storage.open_writer("a", {.offset = 0, .take_over = true});
  const bool taken = co_await write_next(*writer, 10);
  CHECK(taken);
  AppendResult result = co_await writer->close();
  CHECK(result == AppendResult{AppendStatus::committed, 10, false});
  writer = co_await world.storage.open_writer("a", {.offset = 3, .take_over = true});
  result = co_await writer->close();
  CHECK(result == AppendResult{AppendStatus::offset_conflict, 10, false});
}

Task<void> too_late(World& world) {
  co_await create(world, "a", 100);
  Writer present = co_await world.storage.open_writer("a");
  bool taken = co_await write_next(*present, 10);
  CHECK(taken);
  AppendResult result = co_await present->commit();
  CHECK(result == AppendResult{AppendStatus::committed, 10, false});

  // What was begun before the present one is of no use any more, and ends nothing.
  Writer late = co_await world.storage.open_writer("a", {.offset = 9, .take_over = true});
  taken = co_await write_next(*late, 1);
  CHECK_FALSE(taken);
  result = co_await late->close();
  CHECK(result == AppendResult{AppendStatus::offset_conflict, 10, false});
  CHECK_FALSE(present->stop_token().stop_requested());
  taken = co_await write_next(*present, 10);
  CHECK(taken);

  // At the offset and above it, only the present one's end tells.
  Writer newer = co_await world.storage.open_writer("a", {.offset = 10, .take_over = true});
  CHECK(present->stop_token().stop_requested());
  result = co_await newer->close();
  CHECK(result == AppendResult{AppendStatus::offset_conflict, 20, false});
  newer = co_await world.storage.open_writer("a", {.offset = 20, .take_over = true});
  taken = co_await write_next(*newer, 80);
  CHECK(taken);
  result = co_await newer->commit();
  CHECK(result == AppendResult{AppendStatus::committed, 100, true});
  const std::error_code error =
      co_await error_of(world.storage.open_writer("a", {.offset = 0, .take_over = true}));
  CHECK(error == Errc::already_complete);
}

Task<void> destroyed_after(World& world) {
  co_await create(world, "a", 100);
  Writer older = co_await world.storage.open_writer("a");
  const bool taken = co_await write_next(*older, 10);
  CHECK(taken);
  const Writer newer = co_await world.storage.open_writer("a", {.take_over = true});
  older.reset();
  CHECK(newer->offset() == 10);
  co_await newer->close();
}

Task<void> with_checksum(World& world) {
  co_await create(world, "a", 100);
  ByteChecksum checksum(test_bytes(1, 0, 10));
  Writer older = co_await world.storage.open_writer("a", {.checksum = &checksum});
  const bool taken = co_await write_next(*older, 10);
  CHECK(taken);
  const Writer newer = co_await world.storage.open_writer("a", {.take_over = true});
  CHECK(newer->offset() == 0);
  const AppendResult result = co_await older->close();
  CHECK(result == AppendResult{AppendStatus::taken_over, 0, false});
  CHECK(checksum.asked() == 0);
}

/// Opens a writer and says how that ended: committed while it may write.
Task<AppendStatus> open_into(World& world, Writer& writer, bool take_over) {
  writer = co_await world.storage.open_writer("a", {.take_over = take_over});
  const bool may_write = co_await write_next(*writer, 0);
  if (may_write) co_return AppendStatus::committed;
  const AppendResult result = co_await writer->close();
  co_return result.status;
}

Task<AppendStatus> status_of(Task<AppendResult> task) {
  const AppendResult result = co_await std::move(task);
  co_return result.status;
}

Task<void> those_who_wait(World& world) {
  co_await create(world, "a", 100);
  Writer holder = co_await world.storage.open_writer("a");
  Writer waiting;
  Writer newer;
  Writer newest;
  Writer after;
  const Bytes bytes = test_bytes(1, 0, 10);
  std::vector<Task<AppendStatus>> tasks;
  tasks.push_back(open_into(world, waiting, false));
  tasks.push_back(status_of(world.storage.append("a", 0, bytes)));
  tasks.push_back(open_into(world, newer, true));
  tasks.push_back(status_of(world.storage.append("a", 0, bytes)));
  tasks.push_back(open_into(world, newest, true));
  const std::vector<AppendStatus> statuses = co_await when_all(std::move(tasks));
  for (std::size_t i = 0; i < 2; ++i) CHECK(statuses[i] == AppendStatus::taken_over);
  CHECK(statuses[3] == AppendStatus::taken_over);
  CHECK(statuses[4] == AppendStatus::committed);
  // The newer one may have had its turn before the newest came.
  AppendResult result = co_await newer->close();
  CHECK(result == AppendResult{AppendStatus::taken_over, 0, false});
  result = co_await holder->close();
  CHECK(result == AppendResult{AppendStatus::taken_over, 0, false});

  // Who came later waits as ever.
  std::vector<Task<AppendStatus>> later;
  later.push_back(open_into(world, after, false));
  later.push_back(status_of(newest->close()));
  const std::vector<AppendStatus> answers = co_await when_all(std::move(later));
  CHECK(answers == std::vector{AppendStatus::committed, AppendStatus::committed});
  const bool taken = co_await write_next(*after, 10);
  CHECK(taken);
  co_await after->close();
  co_await check_content(world, "a", 1, 10);
}

/// Writes until it is ended.
Task<AppendResult> write_until_ended(UploadWriter& writer) {
  bool taken = true;
  for (int i = 1; taken; ++i) {
    taken = co_await write_next(writer, 20'000);
    if (i % 3 == 0) co_await writer.commit();
  }
  co_return co_await writer.close();
}

Task<Writer> take_over_after(World& world, int turns) {
  for (int turn = 0; turn < turns; ++turn) co_await schedule();
  co_return co_await world.storage.open_writer("a", {.take_over = true});
}

/// A busy writer is taken over at each of its points, again and again.
Task<void> busy_writer(World& world) {
  co_await create(world, "a", std::nullopt);
  std::uint64_t offset = 0;
  for (int turns = 0; turns < 40; ++turns) {
    Writer older = co_await world.storage.open_writer("a", {.offset = offset});
    auto results = co_await when_all(write_until_ended(*older), take_over_after(world, turns));
    const AppendResult ended = std::get<0>(results);
    const Writer newer = std::move(std::get<1>(results));
    CHECK(ended.status == AppendStatus::taken_over);
    CHECK(ended.offset >= offset);
    CHECK(newer->offset() == ended.offset);
    const bool taken = co_await write_next(*newer, 77);
    CHECK(taken);
    const AppendResult result = co_await newer->close();
    offset = ended.offset + 77;
    CHECK(result == AppendResult{AppendStatus::committed, offset, false});
  }
  co_await check_content(world, "a", 1, offset);
}

Task<void> completed_meanwhile(World& world) {
  co_await create(world, "a", 10);
  Writer older = co_await world.storage.open_writer("a");
  const bool taken = co_await write_next(*older, 10);
  CHECK(taken);
  // What the older one wrote is kept, and that was all.
  const std::error_code error =
      co_await error_of(world.storage.open_writer("a", {.take_over = true}));
  CHECK(error == Errc::already_complete);
  const AppendResult result = co_await older->close();
  CHECK(result == AppendResult{AppendStatus::taken_over, 10, true});
  co_await check_content(world, "a", 1, 10);
}

/// The owner of a writer may destroy it inside its own stop callback.
Task<void> destroyed_when_asked(World& world) {
  co_await create(world, "a", 10);
  Writer older = co_await world.storage.open_writer("a");
  const bool taken = co_await write_next(*older, 4);
  CHECK(taken);
  auto destroy = [&older] { older.reset(); };
  const std::stop_callback<decltype(destroy)> callback(older->stop_token(), destroy);
  const Writer newer = co_await world.storage.open_writer("a", {.take_over = true});
  CHECK(older == nullptr);
  CHECK(newer->offset() == 4);
}

Task<void> others_untouched(World& world) {
  co_await create(world, "a", 10);
  co_await create(world, "b", 10);
  Writer other = co_await world.storage.open_writer("b");
  Writer older = co_await world.storage.open_writer("a");
  const Writer newer = co_await world.storage.open_writer("a", {.take_over = true});
  CHECK_FALSE(other->stop_token().stop_requested());
  const bool taken = co_await write_next(*other, 10);
  CHECK(taken);
  const AppendResult result = co_await other->close();
  CHECK(result == AppendResult{AppendStatus::committed, 10, true});
}

}  // namespace

TEST_CASE("a take-over ends an idle writer and keeps what it wrote") {
  on_every_backend(idle_writer);
}
TEST_CASE("a take-over of an upload that nobody writes") {
  on_every_backend(nobody_there);
}

TEST_CASE("a writer that comes too late ends nobody") {
  on_every_backend(too_late);
}
TEST_CASE("a writer may be destroyed after its take-over") {
  on_every_backend(destroyed_after);
}
TEST_CASE("a take-over keeps nothing that a checksum has not confirmed") {
  on_every_backend(with_checksum);
}
TEST_CASE("a take-over ends those who wait before it") {
  on_every_backend(those_who_wait);
}
TEST_CASE("a take-over ends a busy writer at any point") {
  on_every_backend(busy_writer);
}
TEST_CASE("a take-over of a writer that has written all") {
  on_every_backend(completed_meanwhile);
}
TEST_CASE("a writer may be destroyed by its take-over") {
  on_every_backend(destroyed_when_asked);
}
TEST_CASE("a take-over ends no other upload's writer") {
  on_every_backend(others_untouched);
}
