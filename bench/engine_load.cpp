#include "engine_load.hpp"

#include <chrono>
#include <cstdint>
#include <string>
#include <utility>

#include <tidemark/engine/sleep_for.hpp>

namespace tidemark::bench {
namespace {

UploadId id_of(unsigned number) {
  return "upload-" + std::to_string(number);
}

}  // namespace

Task<std::unique_ptr<EngineLoad>> EngineLoad::open(Engine& engine, const AppendWorkload& options) {
  StorageOptions where;
  where.db_path = options.data_dir / "uploads.db";
  where.upload_dir = options.data_dir / "uploads";
  where.durability = options.durability;
  where.min_free_bytes = 0;
  where.lock_timeout = std::chrono::hours(1);
  auto storage = co_await SQLiteStorage::open(engine, std::move(where));
  auto load = std::make_unique<EngineLoad>(std::move(storage), options);
  for (unsigned number = 0; number < options.uploads; ++number) {
    co_await load->create(id_of(number), options.upload_bytes);
  }
  co_return load;
}

EngineLoad::EngineLoad(std::unique_ptr<SQLiteStorage> storage, const AppendWorkload& options)
    : options_(options),
      storage_(std::move(storage)),
      chunk_(options.chunk_bytes),
      uploads_(storage_->executor()) {}

void EngineLoad::start() {
  for (unsigned number = 0; number < options_.uploads; ++number) {
    uploads_.spawn(append_to(id_of(number)));
  }
}

Task<BenchResult> EngineLoad::measure() {
  meter_ = Meter();
  const std::chrono::duration<double> duration(options_.seconds);
  co_await sleep_for(std::chrono::duration_cast<std::chrono::nanoseconds>(duration));
  co_return meter_.finish(options_.chunk_bytes);
}

Task<void> EngineLoad::stop() {
  stopping_ = true;
  co_await uploads_.join();
  co_await storage_->close(std::chrono::seconds(1));
}

Task<void> EngineLoad::create(UploadId id, std::size_t length) {
  Metadata none;
  co_await storage_->create_upload(id, length, std::move(none));
}

Task<void> EngineLoad::append_to(UploadId id) {
  std::uint64_t offset = 0;
  while (!stopping_) {
    const auto started = Meter::Clock::now();
    const AppendResult result = co_await storage_->append(id, offset, chunk_.bytes());
    meter_.record(Meter::Clock::now() - started);
    if (result.status != AppendStatus::committed) die("an append was refused");
    offset = result.offset;
    if (!result.completed) continue;
    co_await storage_->delete_upload(id);
    co_await create(id, options_.upload_bytes);
    offset = 0;
  }
}

}  // namespace tidemark::bench
