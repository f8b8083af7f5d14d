#pragma once

#include <mutex>

#include <tidemark/engine/scope.hpp>
#include <tidemark/storage/detail/upload_turns.hpp>
#include <tidemark/storage/storage_stats.hpp>

namespace tidemark::detail {

/// What the defaults of one Storage share.
class StorageCore {
 public:
  explicit StorageCore(Executor& executor) : turns(executor), endings(executor) {}

  Executor& executor() const { return turns.executor(); }

  /// On the executor.
  UploadTurns turns;
  /// Writers that end while nobody waits for their answer.
  Scope endings;

  /// `change(StorageStats&)`, any thread.
  template <class Change>
  void count(Change change) {
    std::lock_guard lock(mutex_);
    change(stats_);
  }
  StorageStats stats() const {
    std::lock_guard lock(mutex_);
    return stats_;
  }

 private:
  mutable std::mutex mutex_;
  StorageStats stats_;
};

}  // namespace tidemark::detail
