#include <algorithm>
#include <utility>

#include <sqlite3.h>

#include <tidemark/engine/assert.hpp>
#include <tidemark/storage/detail/commit_thread.hpp>

namespace tidemark::detail {
namespace {

using namespace std::chrono_literals;

constexpr std::chrono::nanoseconds k_busy_pause = 1ms;
// How long another writer is remembered, and how long the lock is left free at most between groups.
constexpr std::chrono::nanoseconds k_others_remembered = 10s;
constexpr std::chrono::nanoseconds k_longest_gap = 10ms;
// From the first size on a passive checkpoint runs beside the commits; at the second they wait.
constexpr std::uint64_t k_checkpoint_bytes = std::uint64_t{4} << 20;
constexpr std::uint64_t k_restart_bytes = std::uint64_t{64} << 20;
constexpr std::uint64_t k_page_bytes = 4096;  // What SQLite makes of a new database.

std::exception_ptr replaced_error() {
  return std::make_exception_ptr(
      StorageError(Errc::corrupt, "commit", "", "the database file was replaced or removed"));
}

bool is_full(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const SqliteError& failure) {
    return failure.errc() == Errc::no_space;
  } catch (...) {
    return false;
  }
}

/// Makes the log empty. False when another connection is in the way. Throws SqliteError.
bool checkpoint(Database& database, int mode) {
  const int code = sqlite3_wal_checkpoint_v2(database.handle(), "main", mode, nullptr, nullptr);
  if (code == SQLITE_BUSY) return false;
  if (code != SQLITE_OK) throw SqliteError(database.handle(), code, "checkpoint");
  return true;
}

}  // namespace

CommitThread::CommitThread(Environment& environment, OpenRows open, Options options)
    : environment_(environment),
      open_(std::move(open)),
      options_(std::move(options)),
      rows_(std::make_unique<UploadRows>(open_())),
      checkpoint_at_bytes_(k_checkpoint_bytes) {
  watch_log();
  data_version_ = rows_->data_version();
  thread_ = environment_.start_thread("tidemark-commit", [this] { return turn(); });
}

CommitThread::~CommitThread() {
  thread_.reset();
  TIDEMARK_ASSERT(queue_.size() == 0 && group_.empty(), "no commit is left unanswered");
}

void CommitThread::enqueue(DatabaseRequest& request) {
  if (queue_.push(request)) thread_->wake();
}

void CommitThread::watch_log() {
  const auto note = [](void* self, sqlite3*, const char*, int pages) {
    static_cast<CommitThread*>(self)->log_bytes_ = static_cast<std::uint64_t>(pages) * k_page_bytes;
    return SQLITE_OK;
  };
  sqlite3_wal_hook(rows_->database().handle(), note, this);
}

std::chrono::nanoseconds CommitThread::turn() {
  const TimePoint now = environment_.now();
  if (now < not_before_) return not_before_ - now;
  deletes_only_ = deletes_only_ && !group_.empty();
  if (!deletes_only_) queue_.take_all(group_);
  if (group_.empty()) return k_until_woken;
  const TimePoint began = environment_.now();
  bool done = true;
  try {
    if (!begin()) {
      give_up(now);
      return k_busy_pause;
    }
    commit_group();
  } catch (...) {
    const std::exception_ptr failure = std::current_exception();
    roll_back();
    done = deletes_only_ || !is_full(failure) || !keep_deletes(failure);
    if (done) fail_group(failure);
  }
  deletes_only_ = !done;
  if (done) answer(group_);
  not_before_ = environment_.now() + pause_after(environment_.now() - began);
  return 0ns;
}

bool CommitThread::begin() {
  try {
    if (failed_) reconnect();
    if (!prepare_log()) return false;
    rows_->database().exec("BEGIN IMMEDIATE");
    return true;
  } catch (const SqliteError& error) {
    if (error.primary_code() == SQLITE_BUSY) return false;
    throw;
  }
}

void CommitThread::reconnect() {
  if (rows_->has_moved()) std::rethrow_exception(replaced_error());
  rows_ = std::make_unique<UploadRows>(open_());
  watch_log();
}

bool CommitThread::prepare_log() {
  if (failed_ && !checkpoint(rows_->database(), SQLITE_CHECKPOINT_TRUNCATE)) return false;
  failed_ = false;
  if (log_bytes_ < k_restart_bytes) return true;
  // A reader or another process' checkpoint may be in the way for now; both are short.
  if (!checkpoint(rows_->database(), SQLITE_CHECKPOINT_RESTART)) return false;
  log_bytes_ = 0;
  ++checkpoints_;
  return true;
}

void CommitThread::give_up(TimePoint now) {
  const auto first_is_late = [&] {
    return !group_.empty() && now - group_.front().queued_at >= options_.commit_timeout;
  };
  if (!first_is_late()) return;
  // Made before one leaves the group: without memory, all of it is answered so.
  const std::exception_ptr error = std::make_exception_ptr(
      StorageError(Errc::busy, "commit", "", "another process kept the database locked"));
  RequestList late;
  while (first_is_late()) {
    group_.front().error = error;
    late.splice(late.end(), group_, group_.begin());
  }
  answer(late);
}

void CommitThread::commit_group() {
  if (rows_->has_moved()) std::rethrow_exception(replaced_error());
  note_other_writers();
  for (DatabaseRequest& request : group_) execute(request);
  commit();
  ++groups_;
  if (log_bytes_ < checkpoint_at_bytes_ - k_checkpoint_bytes) {  // The log has begun again.
    checkpoint_at_bytes_ = k_checkpoint_bytes;
  }
  // The reserve that was given up is set aside again after a checkpoint.
  if (log_bytes_ >= checkpoint_at_bytes_ || std::exchange(reserve_given_up_, false)) {
    checkpoint_at_bytes_ = log_bytes_ + k_checkpoint_bytes;
    options_.want_checkpoint();
  }
}

void CommitThread::execute(DatabaseRequest& request) {
  request.error = nullptr;
  try {
    request.execute(*rows_);
  } catch (const StorageError&) {
    request.error = std::current_exception();
  }
}

void CommitThread::commit() {
  try {
    rows_->database().exec("COMMIT");
  } catch (...) {
    // It may have happened all the same. Nothing is built on this log before it is checkpointed.
    failed_ = true;
    throw;
  }
}

void CommitThread::roll_back() {
  if (!rows_->database().in_transaction()) return;
  try {
    rows_->database().exec("ROLLBACK");
  } catch (...) {
    failed_ = true;
  }
}

bool CommitThread::keep_deletes(const std::exception_ptr& failure) {
  RequestList others;
  for (auto next = group_.begin(); next != group_.end();) {
    const auto request = next++;
    if (!request->frees_space) others.splice(others.end(), group_, request);
  }
  const bool has_room = !group_.empty() && options_.release_reserve();
  if (has_room) {
    reserve_given_up_ = true;
    for (DatabaseRequest& request : others) request.error = failure;
    answer(others);
  } else {
    group_.splice(group_.end(), others);
  }
  return has_room;
}

void CommitThread::fail_group(const std::exception_ptr& error) {
  for (DatabaseRequest& request : group_) request.error = error;
}

void CommitThread::answer(RequestList& requests) {
  const TimePoint now = environment_.now();
  {
    std::lock_guard lock(latency_mutex_);
    for (const DatabaseRequest& request : requests) latency_.record(now - request.queued_at);
  }
  while (!requests.empty()) {
    DatabaseRequest& request = requests.front();
    requests.pop_front();
    request.answer();
  }
}

void CommitThread::note_other_writers() {
  const std::int64_t version = rows_->data_version();
  if (std::exchange(data_version_, version) != version) others_seen_at_ = environment_.now();
}

std::chrono::nanoseconds CommitThread::pause_after(std::chrono::nanoseconds held) const {
  const bool others = others_seen_at_ != TimePoint::min() &&
                      environment_.now() - others_seen_at_ < k_others_remembered;
  return std::min(others ? held : held / 20, k_longest_gap);
}

void CommitThread::add_to(StorageStats& stats) const {
  stats.commit_groups = groups_;
  stats.checkpoints += checkpoints_;
  stats.wal_bytes = log_bytes_;
  stats.commits_queued = queue_.size();
  std::lock_guard lock(latency_mutex_);
  stats.commit_latency = latency_;
}

}  // namespace tidemark::detail
