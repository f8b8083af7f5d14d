#pragma once

// What the tests of SQLiteStorage beside other processes share.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <semaphore>
#include <string>
#include <utility>

#include "catch.hpp"
#include "file_tools.hpp"
#include "helper_program.hpp"
#include "sqlite_fixture.hpp"

namespace tidemark::test {

/// An operation that a store is going to submit.
class OperationEvent {
 public:
  using Matches = std::function<bool(const Operation&)>;

  /// Takes the place of what was set with on_submit, and counts operations anew.
  OperationEvent(FaultEnvironment& environment, Matches matches) {
    environment.on_submit(
        [state = state_, matches = std::move(matches)](const Operation& operation, std::uint64_t) {
          if (!state->happened && matches(operation)) {
            state->happened = true;
            state->seen.release();
          }
          return Fault::none();
        });
  }

  /// Returns once the first one that matches was submitted.
  void wait() { state_->seen.acquire(); }

 private:
  struct State {
    bool happened = false;  // On the executor's thread.
    std::binary_semaphore seen{0};
  };
  std::shared_ptr<State> state_ = std::make_shared<State>();
};

/// Another process, or another one's turn, keeps the store from a lock: it has tried `tries` times
/// from now on, and so was refused all but the last time. Also when it writes, which nobody does
/// who waits, so that a test fails in place of waiting without an end.
inline OperationEvent waits_for_lock(FaultEnvironment& environment, std::uint64_t tries = 3) {
  return OperationEvent(environment, [&environment, tries](const Operation& operation) {
    return operation.kind == Operation::Kind::write ||
           environment.count(Operation::Kind::lock) >= tries;
  });
}

template <class Work>
auto in_background(Work work) {
  return std::async(std::launch::async, std::move(work));
}

/// Whether bytes `from` to `to` of the file are those of `seed`.
inline bool has_bytes(const std::filesystem::path& path, std::uint64_t seed, std::size_t from,
                      std::size_t to) {
  const std::string all = contents(path);
  if (all.size() < to) return false;
  return !first_wrong_byte(as_bytes(all).subspan(from, to - from), seed, from);
}

inline void create(SqliteStore& store, const UploadId& id, std::optional<std::uint64_t> length,
                   std::optional<SystemTime> expires_at = std::nullopt) {
  store.wait(store->create_upload(id, length, Metadata(), expires_at));
}

/// Appends the bytes of `seed` that belong there.
inline AppendResult append(SqliteStore& store, const UploadId& id, std::uint64_t offset,
                           std::uint64_t seed, std::size_t length) {
  const Bytes bytes = test_bytes(seed, offset, length);
  return store.wait(store->append(id, offset, bytes));
}

inline std::error_code append_error(SqliteStore& store, const UploadId& id, std::uint64_t offset) {
  const Bytes bytes = test_bytes(9, offset, 10);
  return error_of(store->executor(), store->append(id, offset, bytes));
}

/// What the store says of an upload that is there.
inline Upload look_up(SqliteStore& store, const UploadId& id) {
  const std::optional<Upload> upload = store.wait(store->get_upload(id));
  REQUIRE(upload.has_value());
  return *upload;
}

inline AppendResult committed(std::uint64_t offset, bool completed = false) {
  return {AppendStatus::committed, offset, completed};
}
inline AppendResult conflict(std::uint64_t offset, bool completed = false) {
  return {AppendStatus::offset_conflict, offset, completed};
}

/// storage_process on `folder`, ready for commands.
struct StorageProcess : HelperProgram {
  explicit StorageProcess(const std::filesystem::path& folder)
      : HelperProgram("storage_process", {folder.string()}) {
    REQUIRE(receive() == "ready");
  }
};

/// foreign_writer on `folder`: the format in other hands.
struct ForeignProcess : HelperProgram {
  explicit ForeignProcess(const std::filesystem::path& folder)
      : HelperProgram("foreign_writer", {folder.string()}) {
    REQUIRE(ask("get none") == "none");
  }
  /// Whether it could be done; what is answered beyond `ok` is of no interest.
  bool does(const std::string& command) { return ask(command).substr(0, 2) == "ok"; }
};

}  // namespace tidemark::test
