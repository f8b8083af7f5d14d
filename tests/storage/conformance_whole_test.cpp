// Conformance of Storage: what is done with finished uploads and with all of them.

#include <algorithm>
#include <fstream>
#include <iterator>
#include <map>

#include <sqlite3.h>

#include <tidemark/storage/detail/database.hpp>
#include <tidemark/storage/detail/schema.hpp>

#include "conformance.hpp"

using namespace tidemark;
using namespace tidemark::test;
using namespace std::chrono_literals;

namespace {

Task<void> concatenate_all(World& world, UploadId id, std::vector<UploadId> parts) {
  Metadata metadata{{"filename", "whole"}};
  co_await world.storage.concatenate(id, std::move(parts), std::move(metadata));
}

// GCC 12 takes no braced list of parts where the task is awaited.
template <class... Parts>
Task<void> concatenate(World& world, UploadId id, Parts... parts) {
  return concatenate_all(world, id, std::vector<UploadId>{UploadId(parts)...});
}

/// Finished parts p0, p1, ... of so many bytes each, which are test bytes of seed 1 when joined.
Task<std::vector<UploadId>> create_parts(World& world, std::vector<std::size_t> sizes) {
  std::vector<UploadId> ids;
  std::uint64_t position = 0;
  for (const std::size_t size : sizes) {
    const UploadId id("p" + std::to_string(ids.size()));
    co_await create(world, id, size);
    const Bytes bytes = test_bytes(1, position, size);
    if (size > 0) co_await world.storage.append(id, 0, bytes);
    position += size;
    ids.push_back(id);
  }
  co_return ids;
}

Task<void> joined(World& world) {
  const std::vector<std::size_t> sizes{5000, 0, 1, 1'500'000};
  const std::vector<UploadId> parts = co_await create_parts(world, sizes);
  for (int i = 0; i < 2; ++i) {  // The second time it is there already.
    co_await concatenate_all(world, "whole", parts);
    co_await check_content(world, "whole", 1, 1'505'001);
    const Upload upload = co_await look_up(world, "whole");
    CHECK(upload.completed);
    CHECK(upload.metadata == Metadata{{"filename", "whole"}});
    CHECK_FALSE(upload.expires_at.has_value());
  }
  const Upload part = co_await look_up(world, "p3");
  CHECK(part.offset == 1'500'000);

  // The whole needs its parts no longer.
  for (const UploadId& id : parts) co_await world.storage.delete_upload(id);
  co_await check_content(world, "whole", 1, 1'505'001);
}

Task<void> repeated_and_empty_parts(World& world) {
  co_await create_finished(world, "a", 7, 8);
  co_await concatenate(world, "twice", "a", "a");
  const Bytes bytes = co_await read_all(world, "twice");
  Bytes expected = test_bytes(7, 0, 8);
  const Bytes once = expected;
  expected.insert(expected.end(), once.begin(), once.end());
  CHECK(bytes == expected);

  co_await create(world, "nothing", 0);
  co_await concatenate(world, "empty", "nothing", "nothing");
  const Upload empty = co_await look_up(world, "empty");
  CHECK(empty.completed);
  CHECK(empty.offset == 0);
}

Task<void> bad_parts(World& world) {
  co_await create_finished(world, "a", 1, 10);
  co_await create(world, "unfinished", 10);
  co_await create(world, "deferred", std::nullopt);
  std::error_code error = co_await error_of(concatenate(world, "whole"));
  CHECK(error == Errc::invalid_argument);
  error = co_await error_of(concatenate(world, "whole", "a", "unfinished"));
  CHECK(error == Errc::invalid_argument);
  error = co_await error_of(concatenate(world, "whole", "a", "deferred"));
  CHECK(error == Errc::invalid_argument);
  error = co_await error_of(concatenate(world, "whole", "a", "whole"));
  CHECK(error == Errc::invalid_argument);
  error = co_await error_of(concatenate(world, "whole", "a", "none"));
  CHECK(error == Errc::not_found);
  const std::optional<Upload> none = co_await world.storage.get_upload("whole");
  CHECK_FALSE(none.has_value());

  co_await create_finished(world, "other", 2, 10);
  error = co_await error_of(concatenate(world, "other", "a"));
  CHECK(error == Errc::already_exists);
  co_await check_content(world, "other", 2, 10);
  error = co_await error_of(concatenate(world, "unfinished", "a"));
  CHECK(error == Errc::already_exists);
  co_await check_content(world, "unfinished", 1, 0);
}

/// Two that share parts in different orders, and the same one twice, at once.
Task<void> joined_at_once(World& world) {
  const std::vector<std::size_t> sizes{1000, 2000};
  co_await create_parts(world, sizes);
  std::vector<Task<std::error_code>> tasks;
  for (int i = 0; i < 4; ++i) {
    tasks.push_back(error_of(concatenate(world, "forward", "p0", "p1")));
    tasks.push_back(error_of(concatenate(world, "backward", "p1", "p0")));
  }
  const std::vector<std::error_code> errors = co_await when_all(std::move(tasks));
  CHECK(std::ranges::count(errors, std::error_code()) == 8);
  co_await check_content(world, "forward", 1, 3000);
  const Upload backward = co_await look_up(world, "backward");
  CHECK(backward.offset == 3000);
}

Task<void> join_and_stop(World& world, UploadId id, std::stop_token token) {
  const UploadId part("part-of-" + std::string(id.view()));
  co_await create_finished(world, part, 1, 100'000);
  const std::error_code error = co_await error_of(with_stop(concatenate(world, id, part), token));
  if (error) {
    CHECK(error == std::errc::operation_canceled);
    const std::optional<Upload> none = co_await world.storage.get_upload(id);
    CHECK_FALSE(none.has_value());
    co_await concatenate(world, id, part);
  }
  co_await check_content(world, id, 1, 100'000);
  co_await world.storage.delete_upload(id);
  co_await world.storage.delete_upload(part);
}

Task<void> joining_stopped(World& world) {
  const std::size_t attempts = co_await stop_at_every_point(world, join_and_stop);
  CHECK(attempts > 2);
}

Bytes read_path(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

std::size_t files_in(const std::filesystem::path& folder) {
  const std::filesystem::directory_iterator entries(folder);
  return static_cast<std::size_t>(std::distance(begin(entries), end(entries)));
}

Task<void> released(World& world) {
  const std::filesystem::path out = world.folder / "out";
  std::filesystem::create_directory(out);
  for (const std::size_t size : {0U, 1U, 1'500'000U}) {
    const UploadId id("u" + std::to_string(size));
    co_await create_finished(world, id, 1, size);
    const std::filesystem::path path = out / id.view();
    co_await world.storage.release_to(id, path);
    CHECK(read_path(path) == test_bytes(1, 0, size));
    const std::optional<Upload> none = co_await world.storage.get_upload(id);
    CHECK_FALSE(none.has_value());
  }
  CHECK(files_in(out) == 3);
}

Task<void> not_released(World& world) {
  const std::filesystem::path out = world.folder / "out";
  std::filesystem::create_directory(out);
  Storage& storage = world.storage;
  co_await create(world, "unfinished", 10);
  co_await create_finished(world, "a", 1, 10);
  std::error_code error = co_await error_of(storage.release_to("none", out / "x"));
  CHECK(error == Errc::not_found);
  error = co_await error_of(storage.release_to("unfinished", out / "x"));
  CHECK(error == Errc::invalid_argument);
  error = co_await error_of(storage.release_to("a", out / ""));
  CHECK(error == Errc::invalid_argument);
  error = co_await error_of(storage.release_to("a", out / "no-folder" / "x"));
  CHECK(error.category() == storage_category());
  CHECK(files_in(out) == 0);
  std::ofstream(out / "x") << "mine";
  error = co_await error_of(storage.release_to("a", out / "x"));
  CHECK(error == Errc::already_exists);
  CHECK(read_path(out / "x").size() == 4);
  CHECK(files_in(out) == 1);
  co_await check_content(world, "a", 1, 10);
  co_await check_content(world, "unfinished", 1, 0);
}

Task<void> release_and_stop(World& world, UploadId id, std::stop_token token) {
  co_await create_finished(world, id, 1, 100'000);
  const std::filesystem::path path = world.folder / "out" / id.view();
  const std::error_code error =
      co_await error_of(with_stop(world.storage.release_to(id, path), token));
  if (error) CHECK(error == std::errc::operation_canceled);
  const std::optional<Upload> upload = co_await world.storage.get_upload(id);
  const bool is_out = std::filesystem::exists(path);
  CHECK((upload || is_out));  // Under one name or both, never none.
  if (!error) CHECK_FALSE(upload.has_value());
  if (is_out) CHECK(read_path(path) == test_bytes(1, 0, 100'000));
  if (upload) co_await check_content(world, id, 1, 100'000);
  std::filesystem::remove(path);
  if (upload) co_await world.storage.release_to(id, path);
  std::filesystem::remove(path);
  CHECK(files_in(world.folder / "out") == 0);
}

Task<void> releasing_stopped(World& world) {
  std::filesystem::create_directory(world.folder / "out");
  const std::size_t attempts = co_await stop_at_every_point(world, release_and_stop);
  CHECK(attempts > 2);
}

Task<void> facts_changed(World& world) {
  Storage& storage = world.storage;
  const Metadata before{{"a", "1"}, {"b", "2"}};
  const SystemTime first = world.clock.system_now() + 1h;
  co_await storage.create_upload("a", 10, before, first);
  const Bytes bytes = test_bytes(1, 0, 4);
  co_await storage.append("a", 0, bytes);

  const SystemTime second = first + 1h + 5us;
  co_await storage.set_expiry("a", second);
  Upload upload = co_await look_up(world, "a");
  CHECK(upload.expires_at == second);
  CHECK(upload.metadata == before);
  CHECK(upload.length == 10U);
  co_await check_content(world, "a", 1, 4);

  Metadata after{{"c", "3"}};
  after.set_flag("d");
  co_await storage.set_metadata("a", after);
  upload = co_await look_up(world, "a");
  CHECK(upload.expires_at == second);
  CHECK(upload.metadata == after);
  co_await check_content(world, "a", 1, 4);

  co_await storage.set_expiry("a", std::nullopt);
  upload = co_await look_up(world, "a");
  CHECK_FALSE(upload.expires_at.has_value());
  const Bytes rest = test_bytes(1, 4, 6);
  const AppendResult result = co_await storage.append("a", 4, rest);
  CHECK(result == AppendResult{AppendStatus::committed, 10, true});

  co_await storage.set_metadata("a", before);
  upload = co_await look_up(world, "a");
  CHECK(upload.metadata == before);
  co_await check_content(world, "a", 1, 10);

  co_await create(world, "deferred", std::nullopt);
  co_await storage.set_expiry("deferred", first);
  upload = co_await look_up(world, "deferred");
  CHECK_FALSE(upload.length.has_value());
  CHECK(upload.expires_at == first);

  std::error_code error = co_await error_of(storage.set_expiry("none", first));
  CHECK(error == Errc::not_found);
  error = co_await error_of(storage.set_metadata("none", before));
  CHECK(error == Errc::not_found);
}

/// An expired upload is given more time.
Task<void> revived(World& world) {
  co_await create(world, "a", 10, world.clock.system_now() + 1s);
  world.clock.advance(2s);
  const Bytes bytes = test_bytes(1, 0, 10);
  const std::error_code error = co_await error_of(world.storage.append("a", 0, bytes));
  CHECK(error == Errc::expired);
  co_await world.storage.set_expiry("a", world.clock.system_now() + 1s);
  const AppendResult result = co_await world.storage.append("a", 0, bytes);
  CHECK(result == AppendResult{AppendStatus::committed, 10, true});
}

Task<void> swept(World& world) {
  co_await create_finished(world, "a", 1, 10);
  co_await create(world, "b", 10);
  for (const bool dry_run : {true, false}) {
    const SweepReport report = co_await world.storage.sweep({.min_age = 0s, .dry_run = dry_run});
    CHECK(report.orphan_files.empty());
    CHECK(report.orphan_rows.empty());
    CHECK(report.corrupt.empty());
  }
  co_await check_content(world, "a", 1, 10);
  co_await check_content(world, "b", 1, 0);
}

using Row = std::vector<std::string>;

/// All rows of the format's own columns, by id; NULL is "-".
std::map<std::string, Row> read_rows(const std::filesystem::path& path) {
  detail::Database db(path.string(), SQLITE_OPEN_READWRITE);
  detail::check_schema(db);
  detail::Statement query(db,
                          "SELECT upload_id, upload_length, \"offset\", metadata, created_at, "
                          "completed, expires_at, is_partial FROM uploads");
  std::map<std::string, Row> rows;
  while (query.step()) {
    Row row;
    for (int i = 1; i < 8; ++i) row.emplace_back(query.is_null(i) ? "-" : query.text(i));
    rows.emplace(query.text(0), std::move(row));
  }
  return rows;
}

Task<void> backed_up(World& world) {
  Storage& storage = world.storage;
  const std::filesystem::path path = world.folder / "backup.db";
  const std::string created = "2024-05-06 12:53:20";
  Metadata metadata{{"filename", "gr\xc3\xbc\xc3\x9f"}, {"type", "text"}};
  co_await storage.create_upload("a", 10, metadata, world.clock.system_now() + 1s);
  const Bytes bytes = test_bytes(1, 0, 4);
  co_await storage.append("a", 0, bytes);
  co_await create_finished(world, "finished", 1, 5);
  co_await create(world, "deferred", std::nullopt);
  co_await storage.backup(path);

  const std::map<std::string, Row> expected{
      {"a",
       {"10", "4", "{\"filename\": \"gr\\u00fc\\u00df\", \"type\": \"text\"}", created, "0",
        "2024-05-06T12:53:21.123456+00:00", "0"}},
      {"deferred", {"-1", "0", "{}", created, "0", "-", "0"}},
      {"finished", {"5", "5", "{}", created, "1", "-", "0"}},
  };
  CHECK(read_rows(path) == expected);
  CHECK_FALSE(std::filesystem::exists(path.string() + "-journal"));

  // It is not written over, and what is missing is not made.
  co_await storage.delete_upload("a");
  std::error_code error = co_await error_of(storage.backup(path));
  CHECK(error == Errc::already_exists);
  CHECK(read_rows(path) == expected);
  error = co_await error_of(storage.backup(world.folder / "no-folder" / "backup.db"));
  CHECK(error.category() == storage_category());
  error = co_await error_of(storage.backup(world.folder / ""));
  CHECK(error == Errc::invalid_argument);
  co_await storage.backup(world.folder / "second.db");
  CHECK(read_rows(world.folder / "second.db").size() == 2);
}

Task<void> counted(World& world) {
  const StorageStats before = world.storage.stats();
  co_await create(world, "a", 10);
  const Bytes bytes = test_bytes(1, 0, 10);
  const auto begin = std::span(bytes).first(4);
  const auto rest = std::span(bytes).subspan(4);
  co_await world.storage.append("a", 0, begin);
  co_await world.storage.append("a", 0, begin);
  co_await world.storage.append("a", 4, rest);
  const std::error_code error = co_await error_of(world.storage.append("a", 10, rest));
  CHECK(error == Errc::already_complete);
  const StorageStats after = world.storage.stats();
  CHECK(after.appends - before.appends == 2);
  CHECK(after.bytes_committed - before.bytes_committed == 10);
  CHECK(after.conflicts - before.conflicts == 1);
  CHECK(after.uploads_completed - before.uploads_completed == 1);
  CHECK(after.errors - before.errors == 1);
  CHECK(after.append_latency.total() >= before.append_latency.total() + 2);
}

}  // namespace

TEST_CASE("finished parts are joined, and joined again") {
  on_every_backend(joined);
}
TEST_CASE("parts may be empty and come twice") {
  on_every_backend(repeated_and_empty_parts);
}
TEST_CASE("what cannot be joined changes nothing") {
  on_every_backend(bad_parts);
}
TEST_CASE("parts are shared by several at once") {
  on_every_backend(joined_at_once);
}
TEST_CASE("joining that is stopped leaves nothing") {
  on_every_backend(joining_stopped);
}
TEST_CASE("a finished upload is released to a path") {
  on_every_backend(released);
}
TEST_CASE("what cannot be released stays") {
  on_every_backend(not_released);
}
TEST_CASE("a release that is stopped leaves the bytes under a name") {
  on_every_backend(releasing_stopped);
}
TEST_CASE("expiry and metadata are changed, and nothing else") {
  on_every_backend(facts_changed);
}
TEST_CASE("an expired upload can be given more time") {
  on_every_backend(revived);
}
TEST_CASE("a sweep finds nothing where nothing went wrong") {
  on_every_backend(swept);
}
TEST_CASE("a backup holds all rows in the common format") {
  on_every_backend(backed_up);
}
TEST_CASE("stats count what was done") {
  on_every_backend(counted);
}
