// Conformance of Storage: reading while an upload grows.

#include <algorithm>
#include <limits>

#include "conformance.hpp"

using namespace tidemark;
using namespace tidemark::test;
using namespace std::chrono_literals;

namespace {

Task<void> append_next(World& world, UploadId id, std::size_t count) {
  const Upload upload = co_await look_up(world, id);
  const Bytes bytes = test_bytes(1, upload.offset, count);
  const AppendResult result = co_await world.storage.append(id, upload.offset, bytes);
  CHECK(result.status == AppendStatus::committed);
}

/// Checks what `read` of one range gives: the bytes of seed 1 up to `committed`.
template <class Read>
Task<void> check_ranges(Read& read, std::uint64_t committed) {
  for (const std::uint64_t offset : {0U, 1U, 4095U, 4096U, 9999U, 10'000U, 10'001U, 50'000U}) {
    for (const std::size_t count : {0U, 1U, 100U, 4096U, 20'000U}) {
      Bytes bytes(count, std::byte{0xAA});
      const std::size_t got = co_await read(offset, bytes);
      const std::uint64_t there = committed > offset ? committed - offset : 0;
      CHECK(got == std::min<std::uint64_t>(count, there));
      const auto filled = std::span(bytes).first(got);
      CHECK(first_wrong_byte(filled, 1, offset) == std::nullopt);
      // Nothing is written behind what was read.
      CHECK(std::count(bytes.begin() + static_cast<std::ptrdiff_t>(got), bytes.end(),
                       std::byte{0xAA}) == static_cast<std::ptrdiff_t>(count - got));
    }
  }
}

Task<void> ranges(World& world) {
  Storage& storage = world.storage;
  co_await create(world, "a", 20'000);
  co_await append_next(world, "a", 10'000);
  auto read = [&](std::uint64_t offset, Bytes& bytes) {
    return storage.read_at("a", offset, bytes);
  };
  co_await check_ranges(read, 10'000);
  const std::unique_ptr<UploadReader> reader = co_await storage.open_reader("a");
  CHECK(reader->committed_offset() == 10'000);
  auto read_on = [&](std::uint64_t offset, Bytes& bytes) { return reader->read_at(offset, bytes); };
  co_await check_ranges(read_on, 10'000);

  co_await append_next(world, "a", 10'000);
  co_await check_ranges(read, 20'000);
  co_await check_ranges(read_on, 20'000);
  CHECK(reader->committed_offset() == 20'000);
  Bytes bytes(5);
  for (const std::uint64_t offset :
       {Storage::k_max_length, std::numeric_limits<std::uint64_t>::max()}) {
    std::size_t got = co_await storage.read_at("a", offset, bytes);
    CHECK(got == 0);
    got = co_await reader->read_at(offset, bytes);
    CHECK(got == 0);
  }
}

Task<void> missing(World& world) {
  Bytes bytes(5);
  std::error_code error = co_await error_of(world.storage.read_at("none", 0, bytes));
  CHECK(error == Errc::not_found);
  error = co_await error_of(world.storage.open_reader("none"));
  CHECK(error == Errc::not_found);
  error = co_await error_of(world.storage.wait_for_offset("none", 0));
  CHECK(error == Errc::not_found);
}

Task<void> empty(World& world) {
  Bytes bytes(5);
  for (const std::optional<std::uint64_t> length : {std::optional<std::uint64_t>(0), {}}) {
    const UploadId id(length ? "zero" : "deferred");
    co_await create(world, id, length);
    std::size_t got = co_await world.storage.read_at(id, 0, bytes);
    CHECK(got == 0);
    const std::unique_ptr<UploadReader> reader = co_await world.storage.open_reader(id);
    got = co_await reader->read_at(0, bytes);
    CHECK(got == 0);
    CHECK(reader->committed_offset() == 0);
  }
}

Task<void> ahead(World& world) {
  co_await create(world, "a", 10'000);
  const std::unique_ptr<UploadReader> reader = co_await world.storage.open_reader("a");
  std::unique_ptr<UploadWriter> writer = co_await world.storage.open_writer("a");
  for (std::uint64_t offset = 0; offset < 10'000; offset += 2500) {
    const Bytes next = test_bytes(1, offset, 2500);
    const bool taken = co_await writer->write(next);
    CHECK(taken);
    Bytes bytes(10'000);
    std::size_t got = co_await reader->read_at(0, bytes);
    CHECK(got == offset);
    got = co_await world.storage.read_at("a", 0, bytes);
    CHECK(got == offset);
    const Bytes file = co_await read_all(world, "a");
    CHECK(file.size() == offset);
    co_await writer->commit();
    got = co_await reader->read_at(0, bytes);
    CHECK(got == offset + 2500);
    CHECK(first_wrong_byte(std::span(bytes).first(got), 1, 0) == std::nullopt);
  }
  co_await writer->close();
}

Task<void> after_delete(World& world) {
  co_await create_finished(world, "a", 1, 5000);
  const std::unique_ptr<UploadReader> reader = co_await world.storage.open_reader("a");
  co_await world.storage.delete_upload("a");
  Bytes bytes(5000);
  std::size_t got = 0;
  std::error_code error;
  try {
    got = co_await reader->read_at(0, bytes);
  } catch (const StorageError& thrown) {
    error = thrown.code();
  }
  // Either is right, see UploadReader.
  if (error) {
    CHECK(error == Errc::not_found);
  } else {
    CHECK(got == 5000);
    CHECK(first_wrong_byte(bytes, 1, 0) == std::nullopt);
  }
}

Task<void> offsets_that_are_there(World& world) {
  Storage& storage = world.storage;
  co_await create(world, "a", 10);
  co_await append_next(world, "a", 4);
  std::uint64_t offset = co_await storage.wait_for_offset("a", 0);
  CHECK(offset == 4);
  offset = co_await storage.wait_for_offset("a", 3);
  CHECK(offset == 4);
  co_await append_next(world, "a", 6);
  for (const std::uint64_t beyond : {std::uint64_t{9}, std::uint64_t{10}, Storage::k_max_length,
                                     std::numeric_limits<std::uint64_t>::max()}) {
    offset = co_await storage.wait_for_offset("a", beyond);
    CHECK(offset == 10);
  }
  co_await create(world, "empty", 0);
  offset = co_await storage.wait_for_offset("empty", 0);
  CHECK(offset == 0);
}

/// Follows the upload to its end; gives how many bytes it saw.
Task<std::uint64_t> follow(World& world, UploadId id) {
  const std::unique_ptr<UploadReader> reader = co_await world.storage.open_reader(id);
  std::uint64_t seen = 0;
  for (;;) {
    const std::uint64_t offset = co_await world.storage.wait_for_offset(id, seen);
    if (offset == seen) co_return seen;
    Bytes bytes(static_cast<std::size_t>(offset - seen));
    const std::size_t got = co_await reader->read_at(seen, bytes);
    CHECK(got == bytes.size());
    CHECK(first_wrong_byte(bytes, 1, seen) == std::nullopt);
    seen = offset;
  }
}

Task<std::uint64_t> grow(World& world, UploadId id) {
  for (int i = 0; i < 20; ++i) {
    co_await append_next(world, id, 500);
    co_await schedule();
  }
  co_return 10'000;
}

Task<void> followers(World& world) {
  co_await create(world, "a", 10'000);
  std::vector<Task<std::uint64_t>> tasks;
  for (int i = 0; i < 5; ++i) tasks.push_back(follow(world, "a"));
  tasks.push_back(grow(world, "a"));
  const std::vector<std::uint64_t> seen = co_await when_all(std::move(tasks));
  CHECK(seen == std::vector<std::uint64_t>(6, 10'000));
}

/// Ends of a wait: a completion at the offset itself, a deletion, and a change of the length.
Task<void> other_ends(World& world) {
  Storage& storage = world.storage;
  co_await create(world, "told", std::nullopt);
  co_await append_next(world, "told", 5);
  auto told = co_await when_all(storage.wait_for_offset("told", 5), storage.set_length("told", 5));
  CHECK(std::get<0>(told) == 5);

  co_await create(world, "deleted", 10);
  auto deleted = co_await when_all(error_of(storage.wait_for_offset("deleted", 0)),
                                   storage.delete_upload("deleted"));
  CHECK(std::get<0>(deleted) == Errc::not_found);
}

Task<void> request_stop(std::stop_source source) {
  for (int turn = 0; turn < 10; ++turn) co_await schedule();
  source.request_stop();
}

Task<void> stopped(World& world) {
  co_await create(world, "a", 10);
  std::stop_source source;
  auto waiting = with_stop(world.storage.wait_for_offset("a", 0), source.get_token());
  const auto results = co_await when_all(error_of(std::move(waiting)), request_stop(source));
  CHECK(std::get<0>(results) == std::errc::operation_canceled);
  co_await append_next(world, "a", 10);
}

}  // namespace

TEST_CASE("ranges of committed bytes are read") {
  on_every_backend(ranges);
}
TEST_CASE("what is not there cannot be read or waited for") {
  on_every_backend(missing);
}
TEST_CASE("an upload without bytes reads as nothing") {
  on_every_backend(empty);
}
TEST_CASE("a reader sees no byte before it is committed") {
  on_every_backend(ahead);
}
TEST_CASE("a reader of a deleted upload reads its bytes or nothing") {
  on_every_backend(after_delete);
}
TEST_CASE("wait_for_offset answers at once what is there") {
  on_every_backend(offsets_that_are_there);
}
TEST_CASE("readers follow an upload to its end") {
  on_every_backend(followers);
}
TEST_CASE("wait_for_offset ends with the upload and with its length") {
  on_every_backend(other_ends);
}
TEST_CASE("wait_for_offset can be stopped") {
  on_every_backend(stopped);
}
