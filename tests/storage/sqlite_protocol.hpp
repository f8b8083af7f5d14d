#pragma once

// What the tests of SQLiteStorage's own protocols share.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <utility>

#include <tidemark/storage/sqlite_storage.hpp>

#include "catch.hpp"
#include "foreign_program.hpp"
#include "operation_log.hpp"
#include "running_task.hpp"
#include "sqlite_fixture.hpp"

namespace tidemark::test {

inline AppendResult committed(std::uint64_t offset, bool completed = false) {
  return {AppendStatus::committed, offset, completed};
}

/// Appends bytes of `seed` that live as long as the append.
inline Task<AppendResult> append_test_bytes(Storage& storage, UploadId id, std::uint64_t seed,
                                            std::uint64_t offset, std::size_t count,
                                            AppendOptions options = {}) {
  const Bytes bytes = test_bytes(seed, offset, count);
  co_return co_await storage.append(id, offset, bytes, options);
}

/// Writes the next test bytes of seed 1, in a buffer of the storage.
inline Task<bool> write_buffer(SQLiteStorage& storage, UploadWriter& writer, std::size_t size) {
  Buffer buffer = co_await storage.buffers().acquire(size);
  buffer.resize(size);
  fill_test_bytes(buffer.bytes(), 1, writer.offset());
  co_return co_await writer.write(std::move(buffer));
}
/// The same from plain memory.
inline Task<bool> write_bytes(SQLiteStorage&, UploadWriter& writer, std::size_t size) {
  const Bytes bytes = test_bytes(1, writer.offset(), size);
  co_return co_await writer.write(bytes);
}

/// Lets everything end that waits for the commit thread now.
inline Task<void> drain_commits(Storage& storage) {
  Metadata nothing;
  co_await storage.set_metadata("barrier", std::move(nothing));
}

/// A calendar that a test moves, and a clock that it moves forward or slows down, beside faults.
struct CalendarEnvironment : FaultEnvironment {
  TimePoint now() override {
    const TimePoint real = FaultEnvironment::now() + std::chrono::seconds(seconds_ahead.load());
    const TimePoint since = slow_since.load();
    return since == TimePoint() ? real : since + (real - since) / 1000;
  }
  /// From now on a second takes a quarter of an hour: what happens soon was not waited for.
  void slow_down() { slow_since = now(); }
  /// For errors and warnings.
  void log(LogLevel level, std::string_view) override {
    if (level == LogLevel::info) return;
    ++lines;
    lines.notify_all();
  }
  SystemTime system_now() override { return SystemTime(std::chrono::microseconds(now_us.load())); }
  void advance(std::chrono::microseconds by) { now_us += by.count(); }
  std::atomic<std::int64_t> now_us{1'715'000'000'123'456};
  std::atomic<int> seconds_ahead{0};
  std::atomic<TimePoint> slow_since{TimePoint()};
  std::atomic<int> lines{0};
};

/// A storage with another program beside it. Uploads consist of test bytes of seed 1.
struct ProtocolStore : BasicSqliteStore<CalendarEnvironment> {
  explicit ProtocolStore(const std::filesystem::path& at, StorageOptions with = {})
      : BasicSqliteStore(at, std::move(with)), foreign(at) {}

  void create(UploadId id, std::optional<std::uint64_t> length,
              std::optional<SystemTime> expires_at = std::nullopt) {
    wait((**this).create_upload(id, length, Metadata(), expires_at));
  }
  /// With its bytes up to `offset`.
  void create_at(UploadId id, std::uint64_t offset, std::optional<std::uint64_t> length,
                 std::optional<SystemTime> expires_at = std::nullopt) {
    create(id, length, expires_at);
    REQUIRE(append(id, 0, static_cast<std::size_t>(offset)).offset == offset);
  }
  AppendResult append(UploadId id, std::uint64_t offset, std::size_t count,
                      AppendOptions with = {}) {
    return wait(append_test_bytes(**this, id, 1, offset, count, with));
  }
  std::error_code append_error(UploadId id, std::uint64_t offset, std::size_t count,
                               AppendOptions with = {}) {
    return error_of(append_test_bytes(**this, id, 1, offset, count, with));
  }
  std::unique_ptr<RunningTask<AppendResult>> start_append(UploadId id, std::uint64_t offset,
                                                          std::size_t count,
                                                          AppendOptions with = {}) {
    return start(append_test_bytes(**this, id, 1, offset, count, with));
  }
  template <class T>
  std::unique_ptr<RunningTask<T>> start(Task<T> task) {
    return std::make_unique<RunningTask<T>>(environment, (**this).executor(), std::move(task));
  }
  template <class T>
  std::error_code error_of(Task<T> task) {
    return test::error_of((**this).executor(), std::move(task));
  }
  std::filesystem::path path(UploadId id) const { return options().upload_dir / id.view(); }

  /// What was committed before is now in the database. Makes an upload called "barrier".
  void drain() {
    if (!foreign.has_row("barrier")) create("barrier", std::nullopt);
    wait(drain_commits(**this));
  }

  /// Checks that the upload stands at `offset` for everyone, that its bytes below are right, and
  /// that nobody holds its lock.
  void check_upload(UploadId id, std::uint64_t offset) {
    const std::optional<Upload> upload = wait((**this).get_upload(id));
    REQUIRE(upload.has_value());
    CHECK(upload->offset == offset);
    CHECK(static_cast<std::uint64_t>(foreign.offset(id.view())) == offset);
    const Bytes bytes = wait((**this).read_file(id, std::size_t{1} << 30));
    CHECK(bytes.size() == offset);
    CHECK(first_wrong_byte(bytes, 1, 0) == std::nullopt);
    CHECK_FALSE(is_locked(path(id)));
  }
  /// The same, and that nothing keeps the upload from being finished.
  void check_and_finish(UploadId id, std::uint64_t offset, std::uint64_t length) {
    check_upload(id, offset);
    if (offset == length) return;
    CHECK(append(id, offset, static_cast<std::size_t>(length - offset)) == committed(length, true));
    check_upload(id, length);
    CHECK(std::filesystem::file_size(path(id)) == length);
  }
  /// Operations of the executor's driver that have not come back.
  std::uint64_t operations_running() {
    const DriverStats now = wait(driver_stats((**this).executor()));
    return now.submitted - now.completed;
  }
  /// Checks that no operation is under way, and that no data file is open.
  void check_nothing_left() {
    CHECK(operations_running() == 0);
    CHECK(open_data_files() == 0);
  }
  std::size_t open_data_files() const {
    const std::string folder = std::filesystem::canonical(options().upload_dir).string() + "/";
    std::size_t count = 0;
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
      std::error_code closed;  // The one that reads the list.
      const std::string target = std::filesystem::read_symlink(entry.path(), closed);
      if (target.starts_with(folder)) ++count;
    }
    return count;
  }
  static Task<DriverStats> driver_stats(Executor& executor) { co_return executor.driver().stats(); }

  ForeignProgram foreign;
};

/// One in a fresh folder.
struct ProtocolFixture : SqliteFolder, ProtocolStore {
  ProtocolFixture() : ProtocolStore(folder.path()) {}
};

}  // namespace tidemark::test
