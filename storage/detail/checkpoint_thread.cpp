#include <utility>

#include <sqlite3.h>

#include <tidemark/storage/detail/checkpoint_thread.hpp>

namespace tidemark::detail {

CheckpointThread::CheckpointThread(Environment& environment, Database database,
                                   ReserveFile& reserve)
    : database_(std::move(database)), reserve_(reserve) {
  thread_ = environment.start_thread("tidemark-checkpoint", [this] { return turn(); });
}

std::chrono::nanoseconds CheckpointThread::turn() {
  if (!wanted_.exchange(false)) return k_until_woken;
  sqlite3_wal_checkpoint_v2(database_.handle(), "main", SQLITE_CHECKPOINT_PASSIVE, nullptr,
                            nullptr);
  reserve_.set_aside();
  return k_until_woken;
}

}  // namespace tidemark::detail
