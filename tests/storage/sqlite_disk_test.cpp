// SQLiteStorage on disks that are full, bounded or read-only, and over files that are not what
// their rows say.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <sys/mount.h>
#include <sys/stat.h>
#include <vector>

#include <tidemark/storage/detail/reserve_file.hpp>

#include "loop_filesystem.hpp"
#include "sqlite_protocol.hpp"

using namespace tidemark;
using namespace tidemark::test;
using namespace std::chrono_literals;
namespace fs = std::filesystem;
using Kind = Operation::Kind;

namespace {

constexpr std::size_t k_mib = std::size_t{1} << 20;

/// Writes all that still fits, in a file called "filler".
void fill_disk(const fs::path& folder) {
  const int fd = ::open((folder / "filler").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
  const Bytes bytes(k_mib);
  std::size_t step = bytes.size();
  while (step >= 512) {
    const ssize_t written = ::write(fd, bytes.data(), step);
    if (written < static_cast<ssize_t>(step)) step /= 2;
  }
  ::fsync(fd);
  ::close(fd);
}

/// Appends until the disk is full; gives what was acknowledged.
std::uint64_t append_until_full(ProtocolStore& store, UploadId id) {
  for (std::uint64_t offset = 0;; offset += k_mib) {
    const std::error_code error = store.append_error(id, offset, k_mib);
    if (!error) continue;
    CHECK(error == Errc::no_space);
    return static_cast<std::uint64_t>(store.foreign.offset(id.view()));
  }
}

/// Answers fstatfs with `free_bytes`.
FaultEnvironment::Choose with_free_bytes(std::uint64_t free_bytes) {
  return [=](const Operation& operation, std::uint64_t) {
    if (operation.kind != Kind::stat_filesystem) return Fault::none();
    *operation.filesystem = {};
    operation.filesystem->f_type = 0xef53;  // EXT4_SUPER_MAGIC.
    operation.filesystem->f_frsize = 1;
    operation.filesystem->f_bavail = free_bytes;
    return Fault::answer(0);
  };
}

Task<void> create_with(Storage& storage, UploadId id, Metadata metadata) {
  co_await storage.create_upload(id, 10, std::move(metadata));
}

/// Metadata whose JSON has `size` bytes.
Metadata metadata_of(std::size_t size) {
  const std::size_t around = Metadata{{"k", ""}}.to_json().size();
  return Metadata{{"k", std::string(size - around, 'x')}};
}

}  // namespace

TEST_CASE("a small disk fills, and goes on once there is room") {
  const LoopFilesystem disk(48);
  if (!disk.mounted()) {
    WARN("not shown: it takes the right to mount a file system");
    return;
  }
  ProtocolStore store(disk.path(), {.min_free_bytes = 0});
  CHECK(store.error_of((*store).create_upload("large", 100 * k_mib, Metadata())) == Errc::no_space);
  CHECK_FALSE(store.foreign.has_row("large"));
  CHECK_FALSE(fs::exists(store.path("large")));
  store.create("given", 4 * k_mib);
  store.create("deferred", std::nullopt);
  store.create("next", std::nullopt);
  const std::uint64_t offset = append_until_full(store, "deferred");
  CHECK(offset > 4 * k_mib);
  store.check_upload("deferred", offset);

  // What was declared has its place.
  CHECK(store.append("given", 0, 4 * k_mib - 1) == committed(4 * k_mib - 1));
  store.check_upload("given", 4 * k_mib - 1);

  fill_disk(disk.path());
  store.wait((*store).delete_upload("deferred"));
  CHECK_FALSE(store.foreign.has_row("deferred"));
  CHECK_FALSE(fs::exists(store.path("deferred")));
  CHECK(store.append("next", 0, k_mib) == committed(k_mib));
  store.check_upload("next", k_mib);
  store.close();
  store.open();
  store.check_upload("next", k_mib);
  store.check_upload("given", 4 * k_mib - 1);
}

TEST_CASE("a storage on a disk without a free block opens, deletes and goes on") {
  const std::string kind = GENERATE("ext4", "xfs");
  CAPTURE(kind);
  const LoopFilesystem disk(kind == "xfs" ? 320 : 48, kind);
  if (!disk.mounted()) {
    WARN("not shown: it takes the right to mount a file system");
    return;
  }
  // Nobody else has the database open: SQLite's files beside it go with the last connection.
  SqliteStore store(disk.path(), {.min_free_bytes = 0});
  for (const UploadId id : {"kept", "deleted"}) {
    store.wait(store->create_upload(id, std::nullopt, Metadata()));
    store.wait(append_test_bytes(*store, id, 1, 0, 5000));
  }
  store.close();
  fill_disk(disk.path());
  store.open();
  store.wait(store->delete_upload("deleted"));
  CHECK_FALSE(fs::exists(disk.path() / "uploads" / "deleted"));
  CHECK(store.wait(append_test_bytes(*store, "kept", 1, 5000, 5000)) == committed(10'000));
  CHECK(store.wait(store->read_file("kept", 10'000)) == test_bytes(1, 0, 10'000));
}

TEST_CASE("many uploads on a full disk lose nothing and can all be deleted") {
  const LoopFilesystem disk(48);
  if (!disk.mounted()) {
    WARN("not shown: it takes the right to mount a file system");
    return;
  }
  ProtocolStore store(disk.path(), {.min_free_bytes = 0});
  constexpr int k_uploads = 20;
  std::vector<UploadId> ids;
  for (int i = 0; i < k_uploads; ++i) {
    ids.emplace_back("u" + std::to_string(i));
    store.create(ids.back(), std::nullopt);
    CHECK(store.append(ids.back(), 0, 5000) == committed(5000));
  }
  fill_disk(disk.path());
  // Until the database's log has no place either.
  std::vector<std::uint64_t> offsets(k_uploads, 5000);
  int refused = 0;
  for (int round = 0; refused < 50; ++round) {
    const auto i = static_cast<std::size_t>(round % k_uploads);
    const std::error_code error = store.append_error(ids[i], offsets[i], 5);
    if (error) {
      REQUIRE(error == Errc::no_space);
      ++refused;
    } else {
      offsets[i] += 5;
    }
  }
  for (std::size_t i = 0; i < k_uploads; ++i) store.check_upload(ids[i], offsets[i]);
  for (const UploadId& id : ids) store.wait((*store).delete_upload(id));
  for (const UploadId& id : ids) CHECK_FALSE(fs::exists(store.path(id)));
  fs::remove(disk.path() / "filler");
  store.create("after", 10);
  store.check_and_finish("after", 0, 10);
}

TEST_CASE("deletes go on after a commit that failed on a full disk, while the database must grow") {
  const LoopFilesystem disk(64);
  if (!disk.mounted()) {
    WARN("not shown: it takes the right to mount a file system");
    return;
  }
  SqliteStore store(disk.path(), {.min_free_bytes = 0});
  std::vector<UploadId> ids;
  for (int i = 0; i < 40; ++i) {
    ids.emplace_back("u" + std::to_string(i));
    store.wait(store->create_upload(ids.back(), 100, metadata_of(60'000)));
  }
  fill_disk(disk.path());
  const bool delete_first = GENERATE(false, true);
  const auto fail_one = [&] {
    return error_of(store->executor(), store->set_metadata(ids.back(), metadata_of(60'001)));
  };
  if (!delete_first) {
    while (fail_one() != Errc::no_space) {  // Until the log has no place.
    }
  }
  for (const UploadId& id : ids) {
    CAPTURE(id.view());
    CHECK_FALSE(error_of(store->executor(), store->delete_upload(id)));
  }
  CHECK(fs::is_empty(disk.path() / "uploads"));
}

TEST_CASE("a reserve that finds no place is room again for who met it on its way") {
  const LoopFilesystem disk(48);
  if (!disk.mounted()) {
    WARN("not shown: it takes the right to mount a file system");
    return;
  }
  fill_disk(disk.path());
  detail::ReserveFile reserve((disk.path() / "uploads.db").string(), nullptr);
  reserve.set_aside();
  CHECK(reserve.release());
  CHECK_FALSE(reserve.release());
}

TEST_CASE("what is expired or orphaned leaves a full disk") {
  const LoopFilesystem disk(48);
  if (!disk.mounted()) {
    WARN("not shown: it takes the right to mount a file system");
    return;
  }
  ProtocolStore store(disk.path(), {.min_free_bytes = 0});
  store.create("old", std::nullopt);
  CHECK(store.append("old", 0, 5000) == committed(5000));
  SECTION("expired uploads") {
    store.wait((*store).set_expiry("old", SystemTime()));
    fill_disk(disk.path());
    CHECK(store.wait((*store).cleanup_expired_uploads()) == 1);
  }
  SECTION("files without rows") {
    store.foreign.exec("DELETE FROM uploads WHERE upload_id = 'old'");
    fs::last_write_time(store.path("old"), fs::file_time_type::min());
    fill_disk(disk.path());
    CHECK(store.wait((*store).sweep({})).orphan_files == std::vector<UploadId>{"old"});
  }
  SECTION("rows without files") {
    store.foreign.move_to("old", 0);
    fs::remove(store.path("old"));
    fill_disk(disk.path());
    CHECK(store.wait((*store).sweep({.min_age = 0s})).orphan_rows == std::vector<UploadId>{"old"});
  }
  CHECK_FALSE(store.foreign.has_row("old"));
  CHECK_FALSE(fs::exists(store.path("old")));
}

TEST_CASE_METHOD(SqliteFolder, "a new upload leaves min_free_bytes free") {
  ProtocolStore store(folder.path(), {.min_free_bytes = 1000});
  const auto create_error = [&](std::uint64_t free_bytes, std::optional<std::uint64_t> length) {
    store.environment.on_submit(with_free_bytes(free_bytes));
    const std::error_code error = store.error_of((*store).create_upload("a", length, Metadata()));
    store.environment.on_submit(nullptr);
    CHECK(fs::exists(store.path("a")) == !error);
    store.wait((*store).delete_upload("a"));
    return error;
  };
  CHECK(create_error(1499, 500) == Errc::no_space);
  CHECK_FALSE(create_error(1500, 500));
  CHECK_FALSE(create_error(1501, 500));
  CHECK(create_error(999, std::nullopt) == Errc::no_space);
  CHECK_FALSE(create_error(1000, std::nullopt));
  CHECK(create_error(std::numeric_limits<std::int64_t>::max(), Storage::k_max_length) ==
        Errc::no_space);
}

TEST_CASE_METHOD(SqliteFolder, "max_reserved_bytes bounds what is declared and unfinished") {
  ProtocolStore store(folder.path(), {.max_reserved_bytes = 1000});
  const auto create_error = [&](UploadId id, std::optional<std::uint64_t> length) {
    return store.error_of((*store).create_upload(id, length, Metadata()));
  };
  store.create("a", 600);
  CHECK(create_error("b", 401) == Errc::quota_exceeded);
  CHECK_FALSE(store.foreign.has_row("b"));
  CHECK_FALSE(fs::exists(store.path("b")));
  CHECK_FALSE(create_error("c", 399));
  CHECK_FALSE(create_error("d", 1));
  CHECK(create_error("e", 1) == Errc::quota_exceeded);
  CHECK(create_error("f", 1001) == Errc::quota_exceeded);
  CHECK_FALSE(create_error("deferred", std::nullopt));
  CHECK_FALSE(create_error("empty", 0));
  store.check_and_finish("a", 0, 600);
  CHECK(create_error("g", 601) == Errc::quota_exceeded);
  CHECK_FALSE(create_error("h", 600));
  store.wait((*store).delete_upload("h"));
  CHECK_FALSE(create_error("i", 600));
}

TEST_CASE_METHOD(SqliteFolder, "a length that is told later counts as reserved") {
  ProtocolStore store(folder.path(), {.max_reserved_bytes = 1000});
  const auto set_length_error = [&](UploadId id, std::uint64_t length) {
    return store.error_of((*store).set_length(id, length));
  };
  store.create("a", std::nullopt);
  store.create("b", std::nullopt);
  CHECK(set_length_error("a", 1001) == Errc::quota_exceeded);
  CHECK_FALSE(set_length_error("a", 999));
  CHECK(set_length_error("b", 2) == Errc::quota_exceeded);
  CHECK_FALSE(set_length_error("b", 1));
  store.create("c", std::nullopt);
  CHECK(store.append("c", 0, 500) == committed(500));
  CHECK_FALSE(set_length_error("c", 500));  // Complete: nothing is reserved.
}

TEST_CASE_METHOD(SqliteFolder, "lengths that overflow together are too many") {
  ProtocolStore store(folder.path(), {.max_reserved_bytes = 1000});
  for (const char* const id : {"a", "b"}) {
    store.create(id, std::nullopt);
    store.foreign.exec("UPDATE uploads SET upload_length = 9223372036854775807");
  }
  const auto error = store.error_of((*store).create_upload("c", 1, Metadata()));
  CHECK(error == Errc::quota_exceeded);
}

TEST_CASE_METHOD(SqliteFolder, "max_upload_bytes bounds each upload") {
  ProtocolStore store(folder.path(), {.max_upload_bytes = 1000});
  const auto create_error = [&](UploadId id, std::optional<std::uint64_t> length) {
    return store.error_of((*store).create_upload(id, length, Metadata()));
  };
  CHECK_FALSE(create_error("below", 999));
  CHECK_FALSE(create_error("at", 1000));
  CHECK(create_error("above", 1001) == Errc::quota_exceeded);
  CHECK_FALSE(fs::exists(store.path("above")));
  // A deferred length may be told later, but no byte beyond the bound is taken before.
  store.create("deferred", std::nullopt);
  CHECK(store.append("deferred", 0, 999) == committed(999));
  CHECK(store.append_error("deferred", 999, 2) == Errc::length_exceeded);
  CHECK(store.append("deferred", 999, 1) == committed(1000));
  CHECK(store.append_error("deferred", 1000, 1) == Errc::length_exceeded);
  CHECK(store.error_of((*store).set_length("deferred", 1001)) == Errc::quota_exceeded);
  store.wait((*store).set_length("deferred", 1000));
  store.check_upload("deferred", 1000);
  store.check_and_finish("at", 0, 1000);
  const Metadata none;
  CHECK(store.error_of((*store).concatenate("joined", {"at", "deferred"}, none)) ==
        Errc::quota_exceeded);
}

TEST_CASE_METHOD(SqliteFolder, "max_metadata_bytes bounds what is stored") {
  ProtocolStore store(folder.path(), {.max_metadata_bytes = 100});
  CHECK_FALSE(store.error_of(create_with(*store, "below", metadata_of(99))));
  CHECK_FALSE(store.error_of(create_with(*store, "at", metadata_of(100))));
  CHECK(store.error_of(create_with(*store, "above", metadata_of(101))) == Errc::quota_exceeded);
  CHECK_FALSE(store.foreign.has_row("above"));
  CHECK_FALSE(fs::exists(store.path("above")));
  CHECK(store.error_of((*store).set_metadata("at", metadata_of(101))) == Errc::quota_exceeded);
  CHECK(store.wait((*store).get_upload("at"))->metadata == metadata_of(100));
  store.wait((*store).set_metadata("at", metadata_of(99)));
  CHECK(store.wait((*store).get_upload("at"))->metadata == metadata_of(99));
}

TEST_CASE_METHOD(SqliteFolder, "an upload folder that can only be read") {
  const LoopFilesystem disk(16);
  if (!disk.mounted()) {
    WARN("not shown: it takes the right to mount a file system");
    return;
  }
  fs::create_directory_symlink(disk.path(), folder / "uploads");
  ProtocolStore store(folder.path(), {.min_free_bytes = 0});
  store.create_at("a", 5000, 10'000);
  store.create_at("finished", 100, 100);
  REQUIRE(::mount(nullptr, disk.path().c_str(), nullptr, MS_REMOUNT | MS_RDONLY, nullptr) == 0);
  CHECK(store.append_error("a", 5000, 10) == Errc::io_error);
  CHECK(store.error_of((*store).open_writer("a")) == Errc::io_error);
  CHECK(store.error_of((*store).create_upload("b", 10, Metadata())) == Errc::io_error);
  CHECK_FALSE(store.foreign.has_row("b"));
  CHECK(store.error_of((*store).delete_upload("a")) == Errc::io_error);
  CHECK(store.foreign.has_row("a"));
  CHECK(store.wait((*store).read_file("finished", 100)) == test_bytes(1, 0, 100));
  CHECK(store.wait((*store).get_upload("a"))->offset == 5000);
  REQUIRE(::mount(nullptr, disk.path().c_str(), nullptr, MS_REMOUNT, nullptr) == 0);
  store.check_and_finish("a", 5000, 10'000);
  store.create("b", 10);
}

TEST_CASE_METHOD(SqliteFolder, "a database that can only be read is not opened") {
  const LoopFilesystem disk(16);
  if (!disk.mounted()) {
    WARN("not shown: it takes the right to mount a file system");
    return;
  }
  SqliteStore elsewhere(folder.path());
  StorageOptions options{.db_path = disk.path() / "uploads.db", .upload_dir = folder / "uploads"};
  {
    const auto storage =
        sync_wait(elsewhere.engine, SQLiteStorage::open(elsewhere.engine, options));
    sync_wait(storage->executor(), storage->close(60s));
  }
  REQUIRE(::mount(nullptr, disk.path().c_str(), nullptr, MS_REMOUNT | MS_RDONLY, nullptr) == 0);
  CHECK(error_of(elsewhere.executor, SQLiteStorage::open(elsewhere.engine, options)) ==
        Errc::io_error);
  REQUIRE(::mount(nullptr, disk.path().c_str(), nullptr, MS_REMOUNT, nullptr) == 0);
  const auto storage = sync_wait(elsewhere.engine, SQLiteStorage::open(elsewhere.engine, options));
  sync_wait(storage->executor(), storage->close(60s));
}

TEST_CASE_METHOD(ProtocolFixture, "what stands in the place of a data file is not touched") {
  const std::string kind = GENERATE("link", "dangling link", "folder", "pipe");
  const std::uint64_t offset = GENERATE(as<std::uint64_t>{}, 0, 100);
  CAPTURE(kind, offset);
  create("a", 1000);
  if (offset > 0) append("a", 0, offset);
  const fs::path aside = folder / "aside";
  fs::rename(path("a"), aside);
  if (kind == "link") fs::create_symlink(aside, path("a"));
  if (kind == "dangling link") fs::create_symlink(folder / "nothing", path("a"));
  if (kind == "folder") fs::create_directory(path("a"));
  if (kind == "pipe") REQUIRE(::mkfifo(path("a").c_str(), 0666) == 0);
  CHECK(append_error("a", offset, 10) == Errc::corrupt);
  CHECK(error_of((**this).open_writer("a")) == Errc::corrupt);
  const Bytes bytes(10);
  CHECK(error_of((**this).write_chunk("a", offset, bytes)) == Errc::corrupt);
  CHECK(error_of((**this).update_offset("a", offset + 10)) == Errc::corrupt);
  if (offset > 0) CHECK(error_of((**this).read_file("a", 10)) == Errc::corrupt);
  CHECK(contents(aside).size() == offset);
  CHECK_FALSE(fs::exists(folder / "nothing"));
  CHECK(static_cast<std::uint64_t>(foreign.offset("a")) == offset);

  fs::remove(path("a"));
  fs::rename(aside, path("a"));
  check_and_finish("a", offset, 1000);
}

TEST_CASE_METHOD(ProtocolFixture, "a create follows no link and harms no folder") {
  const bool is_link = GENERATE(false, true);
  write_contents(folder / "aside", "precious");
  if (is_link) {
    fs::create_symlink(folder / "aside", path("a"));
  } else {
    fs::create_directory(path("a"));
  }
  const std::error_code error = error_of((**this).create_upload("a", 10, Metadata()));
  CHECK(error.category() == storage_category());
  CHECK_FALSE(foreign.has_row("a"));
  CHECK(contents(folder / "aside") == "precious");
  CHECK(fs::is_symlink(path("a")) == is_link);
}

TEST_CASE_METHOD(ProtocolFixture,
                 "A2: a data file that is shorter than its offset stays as it is") {
  create_at("a", 5000, 10'000);
  fs::resize_file(path("a"), 4999);
  CHECK(append_error("a", 5000, 10) == Errc::corrupt);
  CHECK(error_of((**this).open_writer("a")) == Errc::corrupt);
  CHECK(error_of((**this).update_offset("a", 6000)) == Errc::corrupt);
  CHECK(error_of((**this).read_file("a", 10'000)) == Errc::corrupt);
  CHECK(fs::file_size(path("a")) == 4999);
  CHECK(foreign.offset("a") == 5000);
  CHECK_FALSE(is_locked(path("a")));
  PlainFile(path("a")).write(0, test_bytes(1, 0, 5000));
  check_and_finish("a", 5000, 10'000);
}

TEST_CASE_METHOD(ProtocolFixture, "a data file that is missing") {
  create_at("a", 5000, 10'000);
  create("b", 10'000);
  fs::remove(path("a"));
  fs::remove(path("b"));
  CHECK(append_error("a", 5000, 10) == Errc::corrupt);
  CHECK(error_of((**this).read_file("a", 10)) == Errc::corrupt);
  CHECK(error_of((**this).open_reader("a")) == Errc::corrupt);
  CHECK(append_error("b", 0, 10) == Errc::not_found);
  CHECK(error_of((**this).open_writer("b")) == Errc::not_found);
  CHECK_FALSE(fs::exists(path("a")));
  CHECK_FALSE(fs::exists(path("b")));
  CHECK(foreign.offset("a") == 5000);
  wait((**this).delete_upload("a"));
  wait((**this).delete_upload("b"));
  CHECK_FALSE(foreign.has_row("a"));
  CHECK_FALSE(foreign.has_row("b"));
}
