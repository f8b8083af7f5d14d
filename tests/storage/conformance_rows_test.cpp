// Conformance of Storage: the facts of an upload, and its bytes without append.

#include <algorithm>
#include <limits>
#include <ranges>

#include "conformance.hpp"

using namespace tidemark;
using namespace tidemark::test;
using namespace std::chrono_literals;

namespace {

constexpr std::uint64_t k_max = Storage::k_max_length;

/// Writes and commits test_bytes(seed, 0, count) with the backend's own operations.
Task<void> put(World& world, UploadId id, std::uint64_t seed, std::size_t count) {
  const Bytes bytes = test_bytes(seed, 0, count);
  co_await world.storage.write_chunk(id, 0, bytes);
  co_await world.storage.sync(id);
  co_await world.storage.update_offset(id, count);
}

Task<void> created_uploads(World& world) {
  Storage& storage = world.storage;
  const std::optional<Upload> none = co_await storage.get_upload("a");
  CHECK_FALSE(none.has_value());

  const SystemTime expires_at = world.clock.system_now() + 3s + 7us;
  Metadata metadata{{"filename", "gr\xc3\xbc\xc3\x9f.bin"}, {"empty", ""}};
  metadata.set_flag("flag");
  metadata.set_binary("digest", test_bytes(1, 0, 33));
  co_await storage.create_upload("a", 5, metadata, expires_at);
  const Upload upload = co_await look_up(world, "a");
  CHECK(upload.id == UploadId("a"));
  CHECK(upload.length == 5U);
  CHECK(upload.offset == 0);
  CHECK(upload.metadata == metadata);
  CHECK(upload.metadata_error.empty());
  CHECK(upload.created_at == std::chrono::floor<std::chrono::seconds>(world.clock.system_now()));
  CHECK(upload.expires_at == expires_at);
  CHECK_FALSE(upload.completed);
  CHECK_FALSE(upload.is_partial);
  CHECK(upload.parts.empty());

  co_await create(world, "deferred", std::nullopt);
  const Upload deferred = co_await look_up(world, "deferred");
  CHECK_FALSE(deferred.length.has_value());
  CHECK_FALSE(deferred.expires_at.has_value());
  CHECK(deferred.metadata.empty());
  CHECK_FALSE(deferred.completed);

  co_await create(world, "empty", 0);
  const Upload empty = co_await look_up(world, "empty");
  CHECK(empty.completed);
  CHECK(empty.offset == 0);
}

Task<void> taken_ids(World& world) {
  co_await create(world, "a", 5);
  co_await put(world, "a", 1, 3);
  const std::error_code error = co_await error_of(create(world, "a", 9));
  CHECK(error == Errc::already_exists);
  co_await check_content(world, "a", 1, 3);
  const Upload upload = co_await look_up(world, "a");
  CHECK(upload.length == 5U);
}

Task<void> at_once(World& world) {
  std::vector<Task<std::error_code>> tasks;
  for (int i = 0; i < 8; ++i) tasks.push_back(error_of(create(world, "a", 5)));
  const std::vector<std::error_code> errors = co_await when_all(std::move(tasks));
  CHECK(std::ranges::count(errors, std::error_code()) == 1);
  CHECK(std::ranges::count(errors, make_error_code(Errc::already_exists)) == 7);
}

Task<void> longest_ids(World& world) {
  const UploadId longest(std::string(UploadId::k_max_bytes, '-'));
  for (const UploadId& id : {longest, UploadId("0"), UploadId("_"), UploadId("-rf")}) {
    co_await create_finished(world, id, 3, 10);
    co_await check_content(world, id, 3, 10);
    CHECK(world.storage.get_file_path(id).filename() == id.view());
  }
}

Task<void> offsets(World& world) {
  Storage& storage = world.storage;
  co_await create(world, "a", 10);
  co_await put(world, "a", 1, 4);
  co_await check_content(world, "a", 1, 4);
  co_await storage.update_offset("a", 2);
  co_await check_content(world, "a", 1, 4);

  std::error_code error = co_await error_of(storage.update_offset("a", 11));
  CHECK(error == Errc::length_exceeded);
  error = co_await error_of(storage.update_offset("a", 5));
  CHECK(error == Errc::corrupt);
  error = co_await error_of(storage.update_offset("b", 0));
  CHECK(error == Errc::not_found);
  co_await check_content(world, "a", 1, 4);

  const Bytes rest = test_bytes(1, 4, 6);
  co_await storage.write_chunk("a", 4, rest);
  co_await check_content(world, "a", 1, 4);
  co_await storage.update_offset("a", 10);
  co_await check_content(world, "a", 1, 10);
}

Task<void> compared_offsets(World& world) {
  Storage& storage = world.storage;
  co_await create(world, "a", 10);
  const Bytes bytes = test_bytes(1, 0, 10);
  co_await storage.write_chunk("a", 0, bytes);
  bool moved = co_await storage.update_offset_atomic("a", 1, 4);
  CHECK_FALSE(moved);
  moved = co_await storage.update_offset_atomic("a", 0, 4);
  CHECK(moved);
  moved = co_await storage.update_offset_atomic("a", 0, 5);
  CHECK_FALSE(moved);
  moved = co_await storage.update_offset_atomic("b", 0, 0);
  CHECK_FALSE(moved);
  co_await check_content(world, "a", 1, 4);

  std::vector<Task<bool>> tasks;
  for (std::uint64_t next = 5; next < 10; ++next) {
    tasks.push_back(storage.update_offset_atomic("a", 4, next));
  }
  const std::vector<bool> moves = co_await when_all(std::move(tasks));
  CHECK(std::ranges::count(moves, true) == 1);
  const Upload upload = co_await look_up(world, "a");
  const auto winner = std::ranges::find(moves, true) - moves.begin();
  CHECK(upload.offset == static_cast<std::uint64_t>(5 + winner));
  moved = co_await storage.update_offset_atomic("a", upload.offset, 10);
  CHECK(moved);
  co_await check_content(world, "a", 1, 10);
}

Task<void> lengths(World& world) {
  Storage& storage = world.storage;
  co_await create(world, "a", std::nullopt);
  co_await put(world, "a", 1, 4);
  std::error_code error = co_await error_of(storage.set_length("a", 3));
  CHECK(error == Errc::invalid_argument);
  co_await storage.set_length("a", 5);
  Upload upload = co_await look_up(world, "a");
  CHECK(upload.length == 5U);
  CHECK_FALSE(upload.completed);
  error = co_await error_of(storage.set_length("a", 5));
  CHECK(error == Errc::invalid_argument);
  error = co_await error_of(storage.set_length("a", 6));
  CHECK(error == Errc::invalid_argument);
  upload = co_await look_up(world, "a");
  CHECK(upload.length == 5U);
  error = co_await error_of(storage.set_length("none", 5));
  CHECK(error == Errc::not_found);

  co_await create(world, "complete", std::nullopt);
  co_await put(world, "complete", 2, 4);
  co_await storage.set_length("complete", 4);
  co_await check_content(world, "complete", 2, 4);
  co_await create(world, "empty", std::nullopt);
  co_await storage.set_length("empty", 0);
  upload = co_await look_up(world, "empty");
  CHECK(upload.completed);
}

Task<void> largest_numbers(World& world) {
  Storage& storage = world.storage;
  for (const std::uint64_t length : {k_max + 1, std::numeric_limits<std::uint64_t>::max()}) {
    std::error_code error = co_await error_of(create(world, "too-long", length));
    CHECK(error == Errc::invalid_argument);
    const std::optional<Upload> none = co_await storage.get_upload("too-long");
    CHECK_FALSE(none.has_value());
    if (length == k_max + 1) co_await create(world, "a", std::nullopt);
    error = co_await error_of(storage.set_length("a", length));
    CHECK(error == Errc::invalid_argument);
    error = co_await error_of(storage.update_offset("a", length));
    CHECK(error == Errc::invalid_argument);
  }
  // The longest there can be fits no disk: a backend may say so, or take it.
  for (const std::uint64_t length : {k_max - 1, k_max}) {
    const UploadId id("long-" + std::to_string(length));
    const std::error_code error = co_await error_of(create(world, id, length));
    if (error) {
      CHECK((error == Errc::no_space || error == Errc::quota_exceeded));
    } else {
      const Upload upload = co_await look_up(world, id);
      CHECK(upload.length == length);
      co_await put(world, id, 1, 3);
      co_await check_content(world, id, 1, 3);
    }
  }

  const Bytes bytes = test_bytes(1, 0, 2);
  std::error_code error = co_await error_of(storage.write_chunk("a", k_max + 1, bytes));
  CHECK(error == Errc::invalid_argument);
  error =
      co_await error_of(storage.write_chunk("a", std::numeric_limits<std::uint64_t>::max(), bytes));
  CHECK(error == Errc::invalid_argument);
  error = co_await error_of(storage.write_chunk("a", k_max - 1, bytes));
  CHECK(error == Errc::length_exceeded);
  error = co_await error_of(storage.write_chunk("a", k_max - 2, bytes));
  CHECK(error.category() == storage_category());  // Room is missing, whatever the backend's is.
  error = co_await error_of(storage.update_offset("a", k_max));
  CHECK(error == Errc::corrupt);
  co_await check_content(world, "a", 1, 0);
}

Task<void> chunks(World& world) {
  Storage& storage = world.storage;
  co_await create(world, "a", 10);
  co_await put(world, "a", 1, 4);
  const Bytes wrong = test_bytes(9, 0, 3);
  std::error_code error = co_await error_of(storage.write_chunk("a", 3, wrong));
  CHECK(error == Errc::invalid_argument);
  error = co_await error_of(storage.write_chunk("a", 8, wrong));
  CHECK(error == Errc::length_exceeded);
  error = co_await error_of(storage.write_chunk("a", 11, {}));
  CHECK(error == Errc::length_exceeded);
  error = co_await error_of(storage.write_chunk("b", 0, wrong));
  CHECK(error == Errc::not_found);
  error = co_await error_of(storage.sync("b"));
  CHECK(error == Errc::not_found);
  co_await storage.write_chunk("a", 10, {});

  // Bytes that are not committed are written again, and may leave a gap at first.
  co_await storage.write_chunk("a", 7, wrong);
  const Bytes rest = test_bytes(1, 4, 6);
  co_await storage.write_chunk("a", 4, rest);
  co_await storage.update_offset("a", 10);
  co_await check_content(world, "a", 1, 10);
}

Task<void> reads(World& world) {
  Storage& storage = world.storage;
  co_await create(world, "a", 10);
  co_await put(world, "a", 1, 6);
  const Bytes ahead = test_bytes(1, 6, 4);
  co_await storage.write_chunk("a", 6, ahead);
  for (const std::size_t max_bytes : {0U, 1U, 5U, 6U, 7U, 10U, 1000U}) {
    const Bytes bytes = co_await storage.read_file("a", max_bytes);
    CHECK(bytes == test_bytes(1, 0, std::min<std::size_t>(max_bytes, 6)));
  }
  const std::error_code error = co_await error_of(storage.read_file("b", 5));
  CHECK(error == Errc::not_found);
}

Task<void> deletions(World& world) {
  Storage& storage = world.storage;
  co_await create(world, "a", 10);
  co_await put(world, "a", 1, 4);
  co_await storage.delete_upload("a");
  const std::optional<Upload> none = co_await storage.get_upload("a");
  CHECK_FALSE(none.has_value());
  const std::error_code error = co_await error_of(storage.read_file("a", 5));
  CHECK(error == Errc::not_found);
  co_await storage.delete_upload("a");

  co_await create(world, "a", 3);
  co_await check_content(world, "a", 1, 0);
  co_await put(world, "a", 2, 3);
  co_await check_content(world, "a", 2, 3);
}

Task<void> pages(World& world) {
  UploadPage page = co_await world.storage.list_uploads(std::nullopt, 5);
  CHECK(page.uploads.empty());
  CHECK_FALSE(page.next.has_value());

  std::vector<UploadId> ids;
  for (const char* id : {"b", "B", "-", "_", "0", "bb", "a"}) ids.emplace_back(id);
  for (const UploadId& id : ids) co_await create_finished(world, id, 1, 4);
  std::ranges::sort(ids);
  for (std::size_t limit = 1; limit <= ids.size() + 1; ++limit) {
    std::vector<UploadId> listed;
    std::optional<UploadId> after;
    do {
      page = co_await world.storage.list_uploads(after, limit);
      CHECK(page.uploads.size() <= limit);
      CHECK((!page.next || page.uploads.size() == limit));
      for (const Upload& upload : page.uploads) {
        CHECK(upload.offset == 4);
        listed.push_back(upload.id);
      }
      after = page.next;
    } while (after);
    CHECK(listed == ids);
  }
  const std::optional<UploadId> between("a0");
  page = co_await world.storage.list_uploads(between, 1);
  REQUIRE(page.uploads.size() == 1);
  CHECK(page.uploads.front().id == UploadId("b"));
}

Task<void> expiry(World& world) {
  Storage& storage = world.storage;
  const SystemTime now = world.clock.system_now();
  co_await create(world, "soon", 10, now + 2us);
  co_await create(world, "soon-deferred", std::nullopt, now + 2us);
  co_await create(world, "later", 10, now + 1h);
  co_await create(world, "never", 10);
  co_await create(world, "finished", 4, now + 2us);
  co_await put(world, "finished", 1, 4);
  co_await create(world, "finished-empty", 0, now + 2us);

  std::vector<UploadId> expired = co_await storage.get_expired_uploads();
  CHECK(expired.empty());
  world.clock.advance(1us);
  expired = co_await storage.get_expired_uploads();
  CHECK(expired.empty());
  std::size_t count = co_await storage.cleanup_expired_uploads();
  CHECK(count == 0);

  world.clock.advance(2us);
  expired = co_await storage.get_expired_uploads();
  std::ranges::sort(expired);
  CHECK(expired == std::vector<UploadId>{"soon", "soon-deferred"});
  count = co_await storage.cleanup_expired_uploads();
  CHECK(count == 2);
  count = co_await storage.cleanup_expired_uploads();
  CHECK(count == 0);
  const UploadPage left = co_await storage.list_uploads(std::nullopt, 10);
  std::vector<UploadId> ids;
  for (const Upload& upload : left.uploads) ids.push_back(upload.id);
  CHECK(ids == std::vector<UploadId>{"finished", "finished-empty", "later", "never"});
  co_await check_content(world, "finished", 1, 4);
}

Task<void> expiry_while_written(World& world) {
  Storage& storage = world.storage;
  co_await create(world, "a", 10, world.clock.system_now() + 1s);
  std::unique_ptr<UploadWriter> writer = co_await storage.open_writer("a");
  world.clock.advance(2s);
  std::size_t count = co_await storage.cleanup_expired_uploads();
  CHECK(count == 0);
  // Whoever began in time may finish.
  const Bytes bytes = test_bytes(1, 0, 10);
  const bool taken = co_await writer->write(bytes);
  CHECK(taken);
  const AppendResult result = co_await writer->close();
  CHECK(result == AppendResult{AppendStatus::committed, 10, true});
  count = co_await storage.cleanup_expired_uploads();
  CHECK(count == 0);

  co_await create(world, "b", 10, world.clock.system_now() + 1s);
  writer = co_await storage.open_writer("b");
  world.clock.advance(2s);
  co_await writer->close();
  count = co_await storage.cleanup_expired_uploads();
  CHECK(count == 1);
}

}  // namespace

TEST_CASE("a created upload has the facts it was given") {
  on_every_backend(created_uploads);
}
TEST_CASE("a taken id is refused and its upload unchanged") {
  on_every_backend(taken_ids);
}
TEST_CASE("of many creates with one id at once, one succeeds") {
  on_every_backend(at_once);
}
TEST_CASE("ids may use all their characters and length") {
  on_every_backend(longest_ids);
}
TEST_CASE("update_offset only raises, over bytes that are there") {
  on_every_backend(offsets);
}
TEST_CASE("update_offset_atomic moves from the expected offset only") {
  on_every_backend(compared_offsets);
}
TEST_CASE("a deferred length is told once") {
  on_every_backend(lengths);
}
TEST_CASE("offsets and lengths end at 2^63 - 1") {
  on_every_backend(largest_numbers);
}
TEST_CASE("write_chunk writes between the offset and the length") {
  on_every_backend(chunks);
}
TEST_CASE("read_file ends at the committed offset") {
  on_every_backend(reads);
}
TEST_CASE("a deleted upload is gone, and its id is free") {
  on_every_backend(deletions);
}
TEST_CASE("list_uploads gives all, in order, page by page") {
  on_every_backend(pages);
}
TEST_CASE("only unfinished uploads expire, at their time") {
  on_every_backend(expiry);
}
TEST_CASE("an upload that is being written is not cleaned up") {
  on_every_backend(expiry_while_written);
}
