// Conformance of Storage: append.

#include <algorithm>
#include <limits>

#include "conformance.hpp"

using namespace tidemark;
using namespace tidemark::test;
using namespace std::chrono_literals;

namespace {

constexpr std::uint64_t k_max = Storage::k_max_length;

Task<AppendResult> append_test_bytes(World& world, UploadId id, std::uint64_t seed,
                                     std::uint64_t offset, std::size_t count,
                                     AppendOptions options = {}) {
  const Bytes bytes = test_bytes(seed, offset, count);
  co_return co_await world.storage.append(id, offset, bytes, options);
}

Task<std::error_code> append_error(World& world, UploadId id, std::uint64_t offset,
                                   std::size_t count) {
  return error_of(append_test_bytes(world, id, 9, offset, count));
}

AppendResult committed(std::uint64_t offset, bool completed = false) {
  return {AppendStatus::committed, offset, completed};
}

Task<void> in_order(World& world) {
  co_await create(world, "a", 10);
  AppendResult result = co_await append_test_bytes(world, "a", 1, 0, 4);
  CHECK(result == committed(4));
  co_await check_content(world, "a", 1, 4);
  result = co_await append_test_bytes(world, "a", 1, 4, 5);
  CHECK(result == committed(9));
  result = co_await append_test_bytes(world, "a", 1, 9, 1);
  CHECK(result == committed(10, true));
  co_await check_content(world, "a", 1, 10);
}

Task<void> of_all_sizes(World& world) {
  std::uint64_t offset = 0;
  constexpr std::size_t k_mib = std::size_t{1} << 20;
  constexpr std::size_t k_sizes[] = {1, 4095, 4096, 4097, 65536, k_mib - 1, k_mib, 3 * k_mib + 5};
  co_await create(world, "a", std::nullopt);
  for (const std::size_t size : k_sizes) {
    const AppendResult result = co_await append_test_bytes(world, "a", 1, offset, size);
    offset += size;
    CHECK(result == committed(offset));
  }
  co_await check_content(world, "a", 1, offset);
}

Task<void> deferred(World& world) {
  co_await create(world, "a", std::nullopt);
  AppendResult result = co_await append_test_bytes(world, "a", 1, 0, 4);
  CHECK(result == committed(4));
  co_await world.storage.set_length("a", 6);
  const std::error_code error = co_await append_error(world, "a", 4, 3);
  CHECK(error == Errc::length_exceeded);
  result = co_await append_test_bytes(world, "a", 1, 4, 2);
  CHECK(result == committed(6, true));
  co_await check_content(world, "a", 1, 6);
}

Task<void> order_of_checks(World& world) {
  const SystemTime soon = world.clock.system_now() + 1s;
  co_await create(world, "finished", 4, soon);
  AppendResult result = co_await append_test_bytes(world, "finished", 1, 0, 4);
  CHECK(result == committed(4, true));
  co_await create(world, "late", 4, soon);
  world.clock.advance(2s);

  // Each time everything that is checked later is wrong as well.
  std::error_code error = co_await append_error(world, "none", 7, 9);
  CHECK(error == Errc::not_found);
  error = co_await append_error(world, "finished", 7, 9);
  CHECK(error == Errc::already_complete);
  error = co_await append_error(world, "late", 7, 9);
  CHECK(error == Errc::expired);
  co_await create(world, "a", 4);
  result = co_await append_test_bytes(world, "a", 9, 7, 9);
  CHECK(result == AppendResult{AppendStatus::offset_conflict, 0, false});
  error = co_await append_error(world, "a", 0, 5);
  CHECK(error == Errc::length_exceeded);

  co_await check_content(world, "finished", 1, 4);
  co_await check_content(world, "late", 1, 0);
  co_await check_content(world, "a", 1, 0);
  result = co_await append_test_bytes(world, "a", 1, 0, 4);
  CHECK(result == committed(4, true));
}

Task<void> not_yet_expired(World& world) {
  co_await create(world, "a", 4, world.clock.system_now() + 2us);
  world.clock.advance(1us);
  AppendResult result = co_await append_test_bytes(world, "a", 1, 0, 2);
  CHECK(result == committed(2));
  world.clock.advance(2us);
  const std::error_code error = co_await append_error(world, "a", 2, 2);
  CHECK(error == Errc::expired);
  co_await check_content(world, "a", 1, 2);
}

Task<void> largest_offsets(World& world) {
  co_await create(world, "a", std::nullopt);
  for (const std::uint64_t offset : {k_max + 1, std::numeric_limits<std::uint64_t>::max()}) {
    const std::error_code error = co_await append_error(world, "a", offset, 1);
    CHECK(error == Errc::invalid_argument);
  }
  for (const std::uint64_t offset : {k_max - 1, k_max}) {
    const AppendResult result = co_await append_test_bytes(world, "a", 9, offset, 2);
    CHECK(result == AppendResult{AppendStatus::offset_conflict, 0, false});
  }
  co_await check_content(world, "a", 1, 0);
}

Task<void> conflicts(World& world) {
  co_await create(world, "a", 10);
  AppendResult result = co_await append_test_bytes(world, "a", 1, 0, 5);
  for (const std::uint64_t offset : {0U, 4U, 6U, 10U}) {
    result = co_await append_test_bytes(world, "a", 9, offset, 2);
    CHECK(result == AppendResult{AppendStatus::offset_conflict, 5, false});
  }
  co_await check_content(world, "a", 1, 5);
}

Task<void> empty(World& world) {
  co_await create(world, "a", 10);
  AppendResult result = co_await append_test_bytes(world, "a", 1, 0, 0);
  CHECK(result == committed(0));
  result = co_await append_test_bytes(world, "a", 1, 1, 0);
  CHECK(result == AppendResult{AppendStatus::offset_conflict, 0, false});
  result = co_await append_test_bytes(world, "a", 1, 0, 10);
  const std::error_code error = co_await append_error(world, "a", 10, 0);
  CHECK(error == Errc::already_complete);
}

Task<void> durabilities(World& world) {
  for (const Durability durability : {Durability::full, Durability::ordered, Durability::none}) {
    const UploadId id("with-" + std::to_string(static_cast<int>(durability)));
    co_await create(world, id, 10);
    AppendResult result =
        co_await append_test_bytes(world, id, 1, 0, 4, {.durability = durability});
    CHECK(result == committed(4));
    co_await check_content(world, id, 1, 4);
    result = co_await append_test_bytes(world, id, 1, 4, 6, {.durability = durability});
    CHECK(result == committed(10, true));
    co_await check_content(world, id, 1, 10);
  }
}

Task<void> checksums(World& world) {
  co_await create(world, "a", std::nullopt);
  ByteChecksum wrong(test_bytes(1, 0, 5));
  AppendResult result = co_await append_test_bytes(world, "a", 9, 0, 5, {.checksum = &wrong});
  CHECK(result == AppendResult{AppendStatus::checksum_mismatch, 0, false});
  CHECK(wrong.asked() == 1);
  co_await check_content(world, "a", 1, 0);

  constexpr std::size_t k_size = (std::size_t{5} << 20) / 2;
  ByteChecksum right(test_bytes(1, 0, k_size));
  result = co_await append_test_bytes(world, "a", 1, 0, k_size, {.checksum = &right});
  CHECK(result == committed(k_size));
  CHECK(right.asked() == 1);
  co_await check_content(world, "a", 1, k_size);

  ByteChecksum not_empty(test_bytes(1, 0, 5));
  result = co_await append_test_bytes(world, "a", 1, k_size, 0, {.checksum = &not_empty});
  CHECK(result == AppendResult{AppendStatus::checksum_mismatch, k_size, false});
  ByteChecksum unused({});
  result = co_await append_test_bytes(world, "a", 1, 0, 1, {.checksum = &unused});
  CHECK(result == AppendResult{AppendStatus::offset_conflict, k_size, false});
  CHECK(unused.asked() == 0);

  // The bytes that did not match are not in the way of the right ones.
  co_await world.storage.set_length("a", k_size + 5);
  ByteChecksum last_wrong(test_bytes(1, 0, 5));
  result = co_await append_test_bytes(world, "a", 9, k_size, 5, {.checksum = &last_wrong});
  CHECK(result == AppendResult{AppendStatus::checksum_mismatch, k_size, false});
  ByteChecksum last(test_bytes(1, k_size, 5));
  result = co_await append_test_bytes(world, "a", 1, k_size, 5, {.checksum = &last});
  CHECK(result == committed(k_size + 5, true));
  co_await check_content(world, "a", 1, k_size + 5);
}

Task<void> races(World& world) {
  co_await create(world, "a", std::nullopt);
  std::uint64_t offset = 0;
  for (std::uint64_t round = 1; round <= 5; ++round) {
    std::vector<Task<AppendResult>> tasks;
    for (std::uint64_t seed = 0; seed < 8; ++seed) {
      tasks.push_back(append_test_bytes(world, "a", 10 * round + seed, offset, 1000 * (seed + 1)));
    }
    const std::vector<AppendResult> results = co_await when_all(std::move(tasks));
    const auto is_committed = [](const AppendResult& result) {
      return result.status == AppendStatus::committed;
    };
    CHECK(std::ranges::count_if(results, is_committed) == 1);
    const auto winner = std::ranges::find_if(results, is_committed);
    REQUIRE(winner != results.end());
    const auto seed = static_cast<std::uint64_t>(winner - results.begin());
    CHECK(winner->offset == offset + 1000 * (seed + 1));
    for (const AppendResult& result : results) {
      if (result == *winner) continue;
      CHECK(result == AppendResult{AppendStatus::offset_conflict, winner->offset, false});
    }
    const Bytes all = co_await read_all(world, "a");
    REQUIRE(all.size() == winner->offset);
    const auto added = std::span(all).subspan(static_cast<std::size_t>(offset));
    CHECK(first_wrong_byte(added, 10 * round + seed, offset) == std::nullopt);
    offset = winner->offset;
  }
}

Task<void> append_to_end(World& world, UploadId id) {
  co_await create(world, id, 20'000);
  for (std::uint64_t offset = 0; offset < 20'000; offset += 4000) {
    const AppendResult result = co_await append_test_bytes(world, id, 1, offset, 4000);
    CHECK(result == committed(offset + 4000, offset == 16'000));
  }
}

Task<void> many(World& world) {
  std::vector<Task<void>> tasks;
  for (int i = 0; i < 50; ++i) tasks.push_back(append_to_end(world, "u" + std::to_string(i)));
  co_await when_all(std::move(tasks));
  for (int i = 0; i < 50; ++i) co_await check_content(world, "u" + std::to_string(i), 1, 20'000);
}

Task<void> deleted_between(World& world) {
  co_await create(world, "a", 10);
  std::vector<Task<std::error_code>> tasks;
  tasks.push_back(error_of(world.storage.delete_upload("a")));
  for (int i = 0; i < 3; ++i) tasks.push_back(append_error(world, "a", 0, 5));
  const std::vector<std::error_code> errors = co_await when_all(std::move(tasks));
  CHECK_FALSE(errors[0]);
  // Each was before the delete or found nothing; none brings it back.
  for (const std::error_code& error : errors) CHECK((!error || error == Errc::not_found));
  const std::optional<Upload> none = co_await world.storage.get_upload("a");
  CHECK_FALSE(none.has_value());
  co_await create_finished(world, "a", 1, 10);
  co_await check_content(world, "a", 1, 10);
}

/// Checks that nothing of an attempt is left behind but what `result` says.
Task<void> check_after(World& world, UploadId id, AppendResult result, std::uint64_t size) {
  co_await check_content(world, id, 1, result.offset);
  if (result.offset < size) {
    // The lock is free: else this would wait for ever.
    const std::size_t rest = static_cast<std::size_t>(size - result.offset);
    const AppendResult next = co_await append_test_bytes(world, id, 1, result.offset, rest);
    CHECK(next == committed(size, true));
  }
  co_await check_content(world, id, 1, size);
}

constexpr std::size_t k_attempt_bytes = (std::size_t{5} << 20) / 2;

Task<void> stopped_append(World& world, UploadId id, std::stop_token token) {
  const Bytes bytes = test_bytes(1, 0, k_attempt_bytes);
  const AppendResult result = co_await with_stop(world.storage.append(id, 0, bytes), token);
  if (result.status != AppendStatus::canceled) CHECK(result == committed(k_attempt_bytes, true));
  co_await without_stop(check_after(world, id, result, k_attempt_bytes));
  co_await without_stop(world.storage.delete_upload(id));
}

Task<void> create_and_stop_append(World& world, UploadId id, std::stop_token token) {
  co_await create(world, id, k_attempt_bytes);
  co_await stopped_append(world, id, token);
}

Task<void> stopped_checked_append(World& world, UploadId id, std::stop_token token) {
  co_await create(world, id, k_attempt_bytes);
  const Bytes bytes = test_bytes(1, 0, k_attempt_bytes);
  ByteChecksum checksum(bytes);
  const AppendResult result =
      co_await with_stop(world.storage.append(id, 0, bytes, {.checksum = &checksum}), token);
  if (result.status == AppendStatus::canceled) {
    CHECK(result.offset == 0);
  } else {
    CHECK(result == committed(k_attempt_bytes, true));
  }
  co_await without_stop(check_after(world, id, result, k_attempt_bytes));
  co_await without_stop(world.storage.delete_upload(id));
}

/// The first append is asked to stop while others wait behind it.
Task<void> stopped_before_others(World& world, UploadId id, std::stop_token token) {
  co_await create(world, id, 2 * k_attempt_bytes);
  std::vector<Task<AppendResult>> tasks;
  const Bytes bytes = test_bytes(1, 0, k_attempt_bytes);
  tasks.push_back(with_stop(world.storage.append(id, 0, bytes), token));
  for (int i = 0; i < 2; ++i) tasks.push_back(world.storage.append(id, 0, bytes));
  const std::vector<AppendResult> results = co_await when_all(std::move(tasks));
  // The next one wins exactly when the first kept nothing, and the last one never does.
  const bool kept_nothing = results[0].offset == 0;
  CHECK((results[1].status == AppendStatus::committed) == kept_nothing);
  CHECK(results[2].status == AppendStatus::offset_conflict);
  CHECK(results[2].offset == results[1].offset);
  co_await check_after(world, id, results[2], 2 * k_attempt_bytes);
  co_await world.storage.delete_upload(id);
}

Task<void> stops(World& world) {
  const std::size_t attempts = co_await stop_at_every_point(world, create_and_stop_append);
  CHECK(attempts > 2);
  co_await stop_at_every_point(world, stopped_checked_append);
  co_await stop_at_every_point(world, stopped_before_others);
}

Task<void> stopped_before(World& world) {
  co_await create(world, "a", 10);
  std::stop_source source;
  source.request_stop();
  const AppendResult result =
      co_await with_stop(append_test_bytes(world, "a", 1, 0, 10), source.get_token());
  CHECK(result == AppendResult{AppendStatus::canceled, 0, false});
  co_await check_after(world, "a", result, 10);
}

}  // namespace

TEST_CASE("appends add up to the upload") {
  on_every_backend(in_order);
}
TEST_CASE("appends may have any size") {
  on_every_backend(of_all_sizes);
}
TEST_CASE("an upload of deferred length completes once it is told") {
  on_every_backend(deferred);
}
TEST_CASE("append checks in its order and changes nothing before") {
  on_every_backend(order_of_checks);
}
TEST_CASE("append is refused once the expiry has passed") {
  on_every_backend(not_yet_expired);
}
TEST_CASE("append at offsets around 2^63 - 1") {
  on_every_backend(largest_offsets);
}
TEST_CASE("append at another offset is a conflict with the true one") {
  on_every_backend(conflicts);
}
TEST_CASE("an empty append only checks") {
  on_every_backend(empty);
}
TEST_CASE("append with each durability") {
  on_every_backend(durabilities);
}
TEST_CASE("append keeps nothing unless its checksum matches") {
  on_every_backend(checksums);
}
TEST_CASE("of many appends at one offset, one wins and its bytes stay") {
  on_every_backend(races);
}
TEST_CASE("appends to many uploads run side by side") {
  on_every_backend(many);
}
TEST_CASE("an append that waits while its upload is deleted brings nothing back") {
  on_every_backend(deleted_between);
}
TEST_CASE("an append that is stopped at any point leaves the true offset and no lock") {
  on_every_backend(stops);
}
TEST_CASE("an append that is stopped before it starts does nothing") {
  on_every_backend(stopped_before);
}
