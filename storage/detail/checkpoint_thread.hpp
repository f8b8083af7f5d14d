#pragma once

#include <atomic>
#include <memory>

#include <tidemark/engine/environment.hpp>
#include <tidemark/storage/detail/database.hpp>
#include <tidemark/storage/detail/reserve_file.hpp>

namespace tidemark::detail {

/// Copies the write-ahead log into the database beside the commits, when asked to, and sets disk
/// space aside again that a full disk took. What it cannot do now it tries when asked again.
///
/// Thread safety: `wake` from any thread.
class CheckpointThread {
 public:
  CheckpointThread(Environment& environment, Database database, ReserveFile& reserve);

  /// Asks for one.
  void wake() {
    wanted_ = true;
    thread_->wake();
  }

 private:
  std::chrono::nanoseconds turn();

  Database database_;
  ReserveFile& reserve_;
  std::atomic<bool> wanted_{false};
  std::unique_ptr<TurnThread> thread_;  // Last: its turns use the members above.
};

}  // namespace tidemark::detail
