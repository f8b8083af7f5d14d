#pragma once

// The uploads that append, through the library: what the workloads on the engine share.

#include <cstddef>
#include <exception>
#include <memory>
#include <utility>

#include <tidemark/engine/engine.hpp>
#include <tidemark/engine/scope.hpp>
#include <tidemark/engine/sync_wait.hpp>
#include <tidemark/storage/sqlite_storage.hpp>

#include "bench.hpp"
#include "chunk.hpp"
#include "die.hpp"
#include "meter.hpp"

namespace tidemark::bench {

/// Waits for `task`. Its failure ends the process at once, because a load that still runs cannot be
/// destroyed.
template <class T>
T run_or_die(Engine& engine, Task<T> task) try {
  return sync_wait(engine, std::move(task));
} catch (const std::exception& error) {
  die(error.what());
}

/// One storage with its uploads, each with a task that appends chunk after chunk. Its tasks run on
/// the storage's executor. To be stopped before it is destroyed.
class EngineLoad {
 public:
  /// Opens a storage in `options.data_dir` and creates the uploads. `options` outlives the load.
  static Task<std::unique_ptr<EngineLoad>> open(Engine& engine, const AppendWorkload& options);
  EngineLoad(std::unique_ptr<SQLiteStorage> storage, const AppendWorkload& options);

  Executor& executor() const { return storage_->executor(); }
  SQLiteStorage& storage() { return *storage_; }
  const Chunk& chunk() const { return chunk_; }

  Task<void> create(UploadId id, std::size_t length);
  /// Begins the appends.
  void start();
  /// The figures of the time from now on, as long as the workload says.
  Task<BenchResult> measure();
  /// Ends the appends after those that are under way, and closes the storage.
  Task<void> stop();

 private:
  Task<void> append_to(UploadId id);

  const AppendWorkload& options_;
  const std::unique_ptr<SQLiteStorage> storage_;
  const Chunk chunk_;
  Meter meter_;
  bool stopping_ = false;
  Scope uploads_;
};

}  // namespace tidemark::bench
