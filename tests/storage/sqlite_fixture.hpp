#pragma once

#include <chrono>
#include <filesystem>
#include <memory>
#include <utility>

#include <tidemark/engine/sync_wait.hpp>
#include <tidemark/storage/sqlite_storage.hpp>

#include "conformance.hpp"
#include "fault_driver.hpp"
#include "file_tools.hpp"
#include "temporary_folder.hpp"

namespace tidemark::test {

/// A SQLiteStorage on an engine of its own, on the driver that the tests run on, in
/// FOLDER/uploads.db and FOLDER/uploads. `environment` is a FaultEnvironment, for faults and for
/// events. Closed at the end, also when a test failed.
///
///     SqliteStore store(folder.path(), {.lock_timeout = 1ms});
///     store.wait(store->create_upload("a", 10, Metadata()));
///     CHECK(error_of(store.executor, store->append("b", 0, bytes)) == Errc::not_found);
template <class Env = FaultEnvironment>
class BasicSqliteStore : public BasicFaultFixture<Env> {
 public:
  /// The paths of `options` are replaced.
  explicit BasicSqliteStore(const std::filesystem::path& folder, StorageOptions options = {})
      : options_(std::move(options)) {
    options_.db_path = folder / "uploads.db";
    options_.upload_dir = folder / "uploads";
    open();
  }
  ~BasicSqliteStore() { close(); }

  SQLiteStorage& operator*() const { return *storage_; }
  SQLiteStorage* operator->() const { return storage_.get(); }

  /// Runs a task of the storage, or one on its executor, to its end.
  template <class T>
  T wait(Task<T> task) {
    return sync_wait(storage_->executor(), std::move(task));
  }

  /// As in a new process.
  void open() { storage_ = sync_wait(this->engine, SQLiteStorage::open(this->engine, options_)); }
  void close() {
    if (!storage_) return;
    sync_wait(storage_->executor(), storage_->close(std::chrono::seconds(60)));
    storage_.reset();
  }

  const StorageOptions& options() const { return options_; }

 private:
  StorageOptions options_;
  std::unique_ptr<SQLiteStorage> storage_;
};
using SqliteStore = BasicSqliteStore<>;

struct SqliteFolder {
  TemporaryFolder folder;
};
/// One in a fresh folder: `TEST_CASE_METHOD(SqliteFixture, ...)`.
struct SqliteFixture : SqliteFolder, SqliteStore {
  SqliteFixture() : SqliteStore(folder.path()) {}
};

}  // namespace tidemark::test
