#include <sqlite3.h>

#include <tidemark/engine/assert.hpp>
#include <tidemark/storage/detail/read_thread.hpp>

namespace tidemark::detail {
namespace {

using namespace std::chrono_literals;
constexpr std::chrono::nanoseconds k_busy_pause = 1ms;

}  // namespace

ReadThread::ReadThread(Environment& environment, UploadRows rows,
                       std::chrono::nanoseconds busy_timeout)
    : environment_(environment), busy_timeout_(busy_timeout), rows_(std::move(rows)) {
  thread_ = environment_.start_thread("tidemark-read", [this] { return turn(); });
}

ReadThread::~ReadThread() {
  thread_.reset();
  TIDEMARK_ASSERT(queue_.size() == 0 && waiting_.empty(), "no read is left unanswered");
}

void ReadThread::enqueue(DatabaseRequest& request) {
  if (queue_.push(request)) thread_->wake();
}

std::chrono::nanoseconds ReadThread::turn() {
  for (DatabaseRequest* request : queue_.take_all()) waiting_.push_back(request);
  if (waiting_.empty()) return k_until_woken;
  const std::deque<DatabaseRequest*> requests = std::exchange(waiting_, {});
  const std::vector<bool> busy = read(requests);
  const TimePoint now = environment_.now();
  for (std::size_t i = 0; i < requests.size(); ++i) {
    if (busy[i] && now - requests[i]->queued_at < busy_timeout_) {
      waiting_.push_back(requests[i]);
    } else {
      requests[i]->answer();
    }
  }
  return waiting_.empty() ? 0ns : k_busy_pause;
}

std::vector<bool> ReadThread::read(const std::deque<DatabaseRequest*>& requests) {
  std::vector<bool> busy(requests.size());
  try {
    if (rows_.database().in_transaction()) rows_.database().exec("ROLLBACK");
    rows_.database().exec("BEGIN");
  } catch (const SqliteError&) {
    for (DatabaseRequest* request : requests) request->error = std::current_exception();
    return busy;
  }
  const bool moved = rows_.has_moved();
  for (std::size_t i = 0; i < requests.size(); ++i) {
    DatabaseRequest* const request = requests[i];
    request->error = nullptr;
    try {
      if (moved) throw StorageError(Errc::corrupt, "read", "", "the database file was replaced");
      request->execute(rows_);
    } catch (const SqliteError& error) {
      busy[i] = error.primary_code() == SQLITE_BUSY;
      request->error = std::current_exception();
    } catch (...) {
      request->error = std::current_exception();
    }
  }
  try {
    if (rows_.database().in_transaction()) rows_.database().exec("COMMIT");
  } catch (const SqliteError&) {  // On damaged pages even that can fail.
    sqlite3_exec(rows_.database().handle(), "ROLLBACK", nullptr, nullptr, nullptr);
  }
  return busy;
}

}  // namespace tidemark::detail
