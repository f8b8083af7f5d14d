#include <algorithm>
#include <cstddef>
#include <utility>

#include <tidemark/engine/assert.hpp>
#include <tidemark/engine/perform.hpp>
#include <tidemark/engine/stop.hpp>
#include <tidemark/storage/detail/failure.hpp>
#include <tidemark/storage/detail/write_session.hpp>
#include <tidemark/storage/storage.hpp>

namespace tidemark::detail {
namespace {

/// Small enough that a stop or a take-over is heeded soon. Pieces end at its multiples, so that all
/// but the first begin aligned.
constexpr std::size_t k_piece_bytes = std::size_t{1} << 20;

}  // namespace

WriteSession::WriteSession(StorageCore& core, const UploadId& id, const WriterOptions& options,
                           const char* operation, const Limits& limits)
    : core_(core),
      id_(id),
      options_(options),
      operation_(operation),
      limits_(limits),
      standing_{options.offset.value_or(0)},
      turn_(
          core.turns, id, [this] { on_taken_over(); }, &standing_) {}

Task<void> WriteSession::open() {
  if (options_.offset && *options_.offset > Storage::k_max_length) {
    throw StorageError(Errc::invalid_argument, operation_, id_.view(), "no offset is so large");
  }
  const AsyncMutex::Guard step = step_.try_lock();
  TIDEMARK_ASSERT(step.owns_lock(), "a session is opened first of all");
  const std::uint64_t expected = options_.offset.value_or(UINT64_MAX);
  const UploadTurns::Standing present = core_.turns.standing(id_);
  if (options_.take_over && present.is_known && expected < present.offset) {
    // A request that comes late: it would end a newer writer, and could not write then.
    core_.count([](StorageStats& stats) { ++stats.conflicts; });
    committed_ = written_ = present.offset;
    co_return co_await finish(AppendStatus::offset_conflict, false);
  }
  Task<void> wait = options_.take_over ? turn_.take_over(expected) : turn_.wait();
  co_await turn_.take(std::move(wait), limits_.lock_timeout, operation_);
  try {
    co_await begin();
  } catch (...) {
    fail();
    throw;
  }
}

Task<void> WriteSession::begin() {
  Environment& environment = executor().environment();
  if (turn_.is_taken_over()) note_taken_over();
  const UploadState state = co_await hold(later(environment.now(), limits_.lock_timeout));
  if (state.completed()) throw StorageError(Errc::already_complete, operation_, id_.view(), "");
  if (state.expired(environment.system_now())) {
    throw StorageError(Errc::expired, operation_, id_.view(), "");
  }
  length_ = state.length;
  committed_ = written_ = state.offset;
  standing_ = {committed_, true};
  if (taken_over_.stop_requested()) {
    co_await finish(AppendStatus::taken_over, false);
  } else if (options_.offset && *options_.offset != committed_) {
    core_.count([](StorageStats& stats) { ++stats.conflicts; });
    co_await finish(AppendStatus::offset_conflict, false);
  }
}

Task<AppendResult> WriteSession::append(std::span<const std::byte> bytes) {
  ends_with_write_ = true;
  co_await write(bytes);
  co_return co_await close();
}

bool WriteSession::accepts(std::uint64_t bytes) {
  if (has_ended()) return false;
  const std::uint64_t end = length_.value_or(limits_.max_length);
  TIDEMARK_ASSERT(written_ <= end || !length_, "no byte is written beyond the length");
  if (written_ > end || bytes > end - written_) {
    core_.count([](StorageStats& stats) { ++stats.errors; });
    throw StorageError(Errc::length_exceeded, operation_, id_.view(), "");
  }
  return true;
}

Task<bool> WriteSession::write(std::span<const std::byte> bytes) {
  const AsyncMutex::Guard step = co_await without_stop(step_.lock());
  if (!accepts(bytes.size())) co_return false;
  co_return co_await write_all(bytes);
}

Task<bool> WriteSession::write(Buffer buffer) {
  AsyncMutex::Guard step = co_await without_stop(step_.lock());
  const std::stop_token owner = co_await current_stop_token();
  if (!accepts(buffer.size())) co_return false;
  if (owner.stop_requested()) {
    co_await without_stop(finish(AppendStatus::canceled, options_.checksum == nullptr));
    co_return false;
  }
  const std::size_t size = buffer.size();
  core_.endings.spawn(write_behind(shared_from_this(), std::move(step), std::move(buffer)));
  in_flight_bytes_ = size;  // It begins after this.
  co_return true;
}

Task<void> WriteSession::write_behind(std::shared_ptr<WriteSession> session, AsyncMutex::Guard step,
                                      Buffer buffer) {
  try {
    co_await session->write_all(buffer.bytes());
  } catch (...) {  // The session keeps it for the next operation.
    if (!session->has_ended()) session->fail();
  }
  session->in_flight_bytes_ = 0;
  step.unlock();
}

Task<bool> WriteSession::write_all(std::span<const std::byte> bytes) {
  const AppendStatus status = co_await write_pieces(bytes);
  if (status == AppendStatus::committed) co_return true;
  co_await without_stop(finish(status, options_.checksum == nullptr));
  co_return false;
}

Task<AppendStatus> WriteSession::write_pieces(std::span<const std::byte> bytes) {
  const std::stop_token owner = co_await current_stop_token();
  const std::stop_token newer = taken_over_.get_token();
  bool canceled = false;
  std::exception_ptr error;
  while (!bytes.empty() && !canceled && !error && !owner.stop_requested() &&
         !newer.stop_requested()) {
    const std::size_t room = k_piece_bytes - static_cast<std::size_t>(written_ % k_piece_bytes);
    const auto piece = bytes.first(std::min(bytes.size(), room));
    const bool alone = ends_with_write_ && piece.size() == bytes.size() && written_ == committed_;
    try {
      co_await write_piece(written_, piece, alone && options_.checksum == nullptr);
      update_checksum(piece);
      written_ += piece.size();
      in_flight_bytes_ -= std::min<std::uint64_t>(in_flight_bytes_, piece.size());
      bytes = bytes.subspan(piece.size());
    } catch (...) {
      canceled = is_canceled(std::current_exception());
      if (!canceled) error = std::current_exception();
    }
  }
  if (error) {
    co_await without_stop(fail_write(error));
    std::rethrow_exception(error);
  }
  if (bytes.empty()) co_return AppendStatus::committed;
  co_return newer.stop_requested() ? AppendStatus::taken_over : AppendStatus::canceled;
}

void WriteSession::update_checksum(std::span<const std::byte> piece) {
  if (options_.checksum == nullptr) return;
  const std::lock_guard lock(checksum_mutex_);
  if (!is_abandoned_) options_.checksum->update(piece);
}

Task<AppendResult> WriteSession::commit() {
  const AsyncMutex::Guard step = co_await without_stop(step_.lock());
  if (!has_ended() && options_.checksum == nullptr) {
    try {
      co_await without_stop(commit_written());
    } catch (...) {
      fail();
      throw;
    }
  }
  if (failure_) std::rethrow_exception(failure_);
  const bool complete = length_ && committed_ >= *length_;
  co_return result_.value_or(AppendResult{AppendStatus::committed, committed_, complete});
}

Task<AppendResult> WriteSession::close() {
  const AsyncMutex::Guard step = co_await without_stop(step_.lock());
  if (!has_ended()) {
    const bool matches = options_.checksum == nullptr || options_.checksum->matches();
    const AppendStatus status = matches ? AppendStatus::committed : AppendStatus::checksum_mismatch;
    co_await without_stop(finish(status, matches));
  }
  if (failure_) std::rethrow_exception(failure_);
  co_return *result_;
}

Task<void> WriteSession::prepare_end(AppendStatus status) {
  return end(shared_from_this(), without_stop(step_.lock()), status);
}

Scope::Prepared WriteSession::prepare_abandoning() {
  return core_.endings.prepare(prepare_end(AppendStatus::committed));
}

void WriteSession::abandon(const Scope::Prepared& prepared) noexcept {
  {
    const std::lock_guard lock(checksum_mutex_);
    is_abandoned_ = true;
  }
  core_.endings.spawn(prepared);
}

Task<void> WriteSession::end(std::shared_ptr<WriteSession> session, Task<AsyncMutex::Guard> lock,
                             AppendStatus status) {
  const AsyncMutex::Guard step = co_await std::move(lock);
  if (session->has_ended()) co_return;
  try {
    co_await session->finish(status, session->options_.checksum == nullptr);
  } catch (...) {  // The session keeps it for `close`, if that is still to come.
    if (!session->has_ended()) session->fail();
  }
}

void WriteSession::on_taken_over() {
  core_.endings.spawn(prepare_end(AppendStatus::taken_over));
  note_taken_over();
}

void WriteSession::note_taken_over() {
  if (!taken_over_.request_stop()) return;
  core_.count([](StorageStats& stats) { ++stats.take_overs; });
}

Task<void> WriteSession::commit_written() {
  TIDEMARK_ASSERT(turn_.has_turn(), "who commits has the turn");
  if (written_ == committed_) co_return co_await confirm();
  const OffsetMove commit = co_await commit_to(committed_, written_);
  length_ = commit.now.length;
  if (!commit.moved) {
    core_.count([](StorageStats& stats) { ++stats.conflicts; });
    result_ =
        AppendResult{AppendStatus::offset_conflict, commit.now.offset, commit.now.completed()};
    leave();
    co_return;
  }
  const std::uint64_t bytes = written_ - std::exchange(committed_, written_);
  standing_ = {is_complete() ? 0 : committed_, true};
  core_.count([&](StorageStats& stats) {
    ++stats.appends;
    stats.bytes_committed += bytes;
    if (is_complete()) ++stats.uploads_completed;
  });
  core_.turns.note_move(id_);
}

Task<void> WriteSession::finish(AppendStatus status, bool keep) {
  if (keep) {
    try {
      co_await commit_written();
    } catch (...) {
      fail();
      throw;
    }
  }
  if (!result_) {
    result_ = AppendResult{status, committed_, length_ && committed_ >= *length_};
  }
  leave();
}

Task<void> WriteSession::fail_write(std::exception_ptr error) {
  if (answered_ > committed_) {
    written_ = answered_;
    try {
      co_await commit_written();
    } catch (...) {  // The first error says more.
    }
  }
  try {
    std::rethrow_exception(error);
  } catch (...) {
    fail();
  }
}

void WriteSession::fail() {
  failure_ = std::current_exception();
  if (!is_canceled(failure_)) core_.count([](StorageStats& stats) { ++stats.errors; });
  leave();
}

void WriteSession::leave() {
  let_go();
  turn_.end();
}

}  // namespace tidemark::detail
