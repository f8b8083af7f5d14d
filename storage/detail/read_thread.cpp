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
  queue_.take_all(waiting_);
  if (waiting_.empty()) return k_until_woken;
  read(waiting_);
  const TimePoint now = environment_.now();
  for (auto next = waiting_.begin(); next != waiting_.end();) {
    DatabaseRequest& request = *next;
    if (request.is_busy && now - request.queued_at < busy_timeout_) {
      ++next;
    } else {
      next = waiting_.erase(next);
      request.answer();
    }
  }
  return waiting_.empty() ? 0ns : k_busy_pause;
}

void ReadThread::read(RequestList& requests) {
  try {
    if (rows_.database().in_transaction()) rows_.database().exec("ROLLBACK");
    rows_.database().exec("BEGIN");
  } catch (...) {
    for (DatabaseRequest& request : requests) {
      request.error = std::current_exception();
      request.is_busy = false;
    }
    return;
  }
  const bool moved = rows_.has_moved();
  for (DatabaseRequest& request : requests) {
    request.error = nullptr;
    request.is_busy = false;
    try {
      if (moved) throw StorageError(Errc::corrupt, "read", "", "the database file was replaced");
      request.execute(rows_);
    } catch (const SqliteError& error) {
      request.is_busy = error.primary_code() == SQLITE_BUSY;
      request.error = std::current_exception();
    } catch (...) {
      request.error = std::current_exception();
    }
  }
  try {
    if (rows_.database().in_transaction()) rows_.database().exec("COMMIT");
  } catch (...) {  // On damaged pages even that can fail.
    sqlite3_exec(rows_.database().handle(), "ROLLBACK", nullptr, nullptr, nullptr);
  }
}

}  // namespace tidemark::detail
