#include "conformance.hpp"

#include <array>

#include <tidemark/engine/sync_wait.hpp>
#include <tidemark/storage/sqlite_storage.hpp>

#include "driver_fixture.hpp"
#include "memory_storage.hpp"
#include "temporary_folder.hpp"

namespace tidemark::test {
namespace {

Task<std::unique_ptr<Storage>> open_memory(Engine& engine, std::filesystem::path) {
  co_return std::make_unique<MemoryStorage>(engine.executor());
}

Task<std::unique_ptr<Storage>> open_sqlite(Engine& engine, std::filesystem::path folder) {
  StorageOptions options;
  options.db_path = folder / "uploads.db";
  options.upload_dir = folder / "uploads";
  co_return co_await SQLiteStorage::open(engine, std::move(options));
}

/// Closes the storage also after a scenario that failed.
class ClosedStorage {
 public:
  explicit ClosedStorage(std::unique_ptr<Storage> storage) : storage_(std::move(storage)) {}
  ~ClosedStorage() { sync_wait(storage_->executor(), storage_->close(std::chrono::seconds(60))); }
  Storage& operator*() const { return *storage_; }

 private:
  const std::unique_ptr<Storage> storage_;
};

}  // namespace

std::span<const Backend> backends() {
  static constexpr std::array k_backends{Backend{"memory", &open_memory},
                                         Backend{"sqlite", &open_sqlite}};
  return k_backends;
}

void on_every_backend(Task<void> (*scenario)(World& world)) {
  for (const Backend& backend : backends()) {
    DYNAMIC_SECTION(backend.name) {
      const TemporaryFolder folder;
      TestClock clock;
      EngineOptions options = engine_options();
      options.environment = &clock;
      Engine engine(options);
      const ClosedStorage storage(sync_wait(engine, backend.open(engine, folder / "store")));
      World world{engine, clock, *storage, folder.path()};
      sync_wait((*storage).executor(), scenario(world));
    }
  }
}

}  // namespace tidemark::test
