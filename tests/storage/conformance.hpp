#pragma once

// What the conformance suite of Storage shares: every scenario runs over every backend.

#include <atomic>
#include <chrono>
#include <cstddef>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <ostream>
#include <span>
#include <stop_token>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <tidemark/engine/engine.hpp>
#include <tidemark/engine/sleep_for.hpp>
#include <tidemark/engine/stop.hpp>
#include <tidemark/engine/when_all.hpp>
#include <tidemark/storage/storage.hpp>

#include "catch.hpp"
#include "test_bytes.hpp"

namespace tidemark {

// For the reports of failed assertions.
inline std::ostream& operator<<(std::ostream& out, const AppendResult& result) {
  constexpr const char* k_names[] = {"committed", "offset_conflict", "checksum_mismatch",
                                     "taken_over", "canceled"};
  return out << k_names[static_cast<int>(result.status)] << " at " << result.offset
             << (result.completed ? ", complete" : "");
}
inline std::ostream& operator<<(std::ostream& out, const UploadId& id) {
  return out << id.view();
}

namespace test {

using Bytes = std::vector<std::byte>;

/// Calendar time that stands still until a test moves it, and monotonic time that can be halted, so
/// that no pause ever ends.
class TestClock : public Environment {
 public:
  TimePoint now() override {
    const TimePoint halted_at = halted_at_.load();
    return halted_at == TimePoint() ? Environment::now() : halted_at;
  }
  void halt() { halted_at_ = Environment::now(); }
  SystemTime system_now() override { return SystemTime(std::chrono::microseconds(now_us_.load())); }
  void advance(std::chrono::microseconds by) { now_us_ += by.count(); }

 private:
  std::atomic<TimePoint> halted_at_{TimePoint()};
  std::atomic<std::int64_t> now_us_{1'715'000'000'123'456};
};

/// One open storage and what is around it. Scenarios run on the storage's executor.
struct World {
  Engine& engine;
  TestClock& clock;
  Storage& storage;
  const std::filesystem::path folder;  // For what a scenario itself writes.

  Executor& executor() const { return storage.executor(); }
};

struct Backend {
  const char* name;
  Task<std::unique_ptr<Storage>> (*open)(Engine& engine, std::filesystem::path folder);
};

/// All that are tested.
std::span<const Backend> backends();

/// Runs `scenario` once over each, in a section of its own, in a fresh folder.
void on_every_backend(Task<void> (*scenario)(World& world));

// Steps that scenarios share.

inline Task<void> create(World& world, UploadId id, std::optional<std::uint64_t> length,
                         std::optional<SystemTime> expires_at = std::nullopt) {
  Metadata metadata;
  co_await world.storage.create_upload(id, length, std::move(metadata), expires_at);
}

/// A finished upload of test_bytes(seed, 0, length).
inline Task<void> create_finished(World& world, UploadId id, std::uint64_t seed,
                                  std::size_t length) {
  co_await create(world, id, length);
  if (length == 0) co_return;
  const Bytes bytes = test_bytes(seed, 0, length);
  const AppendResult result = co_await world.storage.append(id, 0, bytes);
  REQUIRE(result == AppendResult{AppendStatus::committed, length, true});
}

/// What the upload is now; there must be one.
inline Task<Upload> look_up(World& world, UploadId id) {
  std::optional<Upload> upload = co_await world.storage.get_upload(id);
  REQUIRE(upload.has_value());
  co_return *std::move(upload);
}

/// All committed bytes.
inline Task<Bytes> read_all(World& world, UploadId id) {
  return world.storage.read_file(id, std::size_t{1} << 30);
}

/// Checks that the upload stands at `offset` and consists of test_bytes(seed, 0, offset).
inline Task<void> check_content(World& world, UploadId id, std::uint64_t seed,
                                std::uint64_t offset) {
  const Upload upload = co_await look_up(world, id);
  CHECK(upload.offset == offset);
  CHECK(upload.completed == (upload.length == offset));
  const Bytes bytes = co_await read_all(world, id);
  CHECK(bytes.size() == offset);
  CHECK(first_wrong_byte(bytes, seed, 0) == std::nullopt);
}

/// The code of the error that ends `task`; none when it succeeds.
template <class T>
Task<std::error_code> error_of(Task<T> task) {
  try {
    static_cast<void>(co_await std::move(task));
  } catch (const std::system_error& error) {
    co_return error.code();
  }
  co_return std::error_code();
}

/// Requests a stop after `turns` turns of the executor, unless `done` is set before.
inline Task<void> stop_after(std::size_t turns, std::stop_source source, const bool& done) {
  for (std::size_t turn = 0; turn < turns && !done; ++turn) co_await schedule();
  if (!done) source.request_stop();
}

inline Task<void> attempt_and_tell(World& world,
                                   Task<void> (*attempt)(World&, UploadId, std::stop_token),
                                   UploadId id, std::stop_token token, bool& done) {
  co_await attempt(world, id, std::move(token));
  done = true;
}

/// Calls `attempt` with a new id each time, and asks it to stop one turn later each time (in bigger
/// steps once it takes many), until it is done before it is asked. Gives how often that was.
inline Task<std::size_t> stop_at_every_point(World& world, Task<void> (*attempt)(World&, UploadId,
                                                                                 std::stop_token)) {
  std::size_t attempts = 0;
  bool stopped = true;
  for (std::size_t turns = 0; stopped; turns += 1 + turns / 16) {
    const UploadId id("attempt-" + std::to_string(++attempts));
    std::stop_source source;
    bool done = false;
    co_await when_all(attempt_and_tell(world, attempt, id, source.get_token(), done),
                      stop_after(turns, source, done));
    stopped = source.stop_requested();
  }
  co_return attempts;
}

/// A digest for tests: the bytes themselves.
class ByteChecksum final : public Checksum {
 public:
  explicit ByteChecksum(Bytes expected) : expected_(std::move(expected)) {}
  void update(std::span<const std::byte> bytes) override {
    seen_.insert(seen_.end(), bytes.begin(), bytes.end());
  }
  bool matches() override {
    ++asked_;
    return seen_ == expected_;
  }
  int asked() const { return asked_; }

 private:
  const Bytes expected_;
  Bytes seen_;
  int asked_ = 0;
};

}  // namespace test
}  // namespace tidemark
