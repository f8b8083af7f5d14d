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
  if (!read(waiting_) && environment_.now() - waiting_.front()->queued_at < busy_timeout_) {
    return k_busy_pause;
  }
  for (DatabaseRequest* request : std::exchange(waiting_, {})) request->answer();
  return 0ns;
}

bool ReadThread::read(std::deque<DatabaseRequest*>& requests) {
  bool busy = false;
  try {
    rows_.database().exec("BEGIN");
  } catch (const SqliteError&) {
    for (DatabaseRequest* request : requests) request->error = std::current_exception();
    return true;
  }
  const bool moved = rows_.has_moved();
  for (DatabaseRequest* request : requests) {
    request->error = nullptr;
    try {
      if (moved) throw StorageError(Errc::corrupt, "read", "", "the database file was replaced");
      request->execute(rows_);
    } catch (const SqliteError& error) {
      busy = busy || error.primary_code() == SQLITE_BUSY;
      request->error = std::current_exception();
    } catch (...) {
      request->error = std::current_exception();
    }
  }
  if (rows_.database().in_transaction()) rows_.database().exec("COMMIT");
  return !busy;
}

}  // namespace tidemark::detail
