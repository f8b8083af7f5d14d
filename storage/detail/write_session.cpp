#include <algorithm>
#include <cstddef>
#include <utility>

#include <tidemark/engine/assert.hpp>
#include <tidemark/engine/perform.hpp>
#include <tidemark/engine/stop.hpp>
#include <tidemark/storage/detail/failure.hpp>
#include <tidemark/storage/detail/write_session.hpp>

namespace tidemark::detail {
namespace {

/// Small enough that a stop or a take-over is heeded soon.
constexpr std::size_t k_step_bytes = std::size_t{1} << 20;

/// A task of the storage's scope, which keeps the session alive.
Task<void> end_session(std::shared_ptr<WriteSession> session, AppendStatus status) {
  try {
    co_await session->end(status);
  } catch (...) {  // The session keeps it for `close`, if that is still to come.
  }
}

}  // namespace

WriteSession::WriteSession(Storage& storage, StorageCore& core, const UploadId& id,
                           const WriterOptions& options, const char* operation)
    : storage_(storage),
      core_(core),
      id_(id),
      options_(options),
      operation_(operation),
      turn_(core.turns, id, [this] { on_taken_over(); }) {}

Task<void> WriteSession::open() {
  if (options_.offset && *options_.offset > Storage::k_max_length) {
    throw StorageError(Errc::invalid_argument, operation_, id_.view(), "no offset is so large");
  }
  const AsyncMutex::Guard step = co_await step_.lock();
  if (options_.take_over) {
    co_await turn_.take_over();
  } else {
    co_await turn_.wait();
  }
  try {
    co_await begin();
  } catch (...) {
    fail();
    throw;
  }
}

Task<void> WriteSession::begin() {
  const std::optional<Upload> upload = co_await storage_.get_upload(id_);
  if (!upload) throw StorageError(Errc::not_found, operation_, id_.view(), "");
  if (upload->completed) throw StorageError(Errc::already_complete, operation_, id_.view(), "");
  if (upload->expires_at && *upload->expires_at <= executor().environment().system_now()) {
    throw StorageError(Errc::expired, operation_, id_.view(), "");
  }
  length_ = upload->length;
  committed_ = written_ = upload->offset;
  if (turn_.is_taken_over()) {
    core_.count([](StorageStats& stats) { ++stats.take_overs; });
    taken_over_.request_stop();
    co_await finish(AppendStatus::taken_over, false);
  } else if (options_.offset && *options_.offset != committed_) {
    core_.count([](StorageStats& stats) { ++stats.conflicts; });
    co_await finish(AppendStatus::offset_conflict, false);
  }
}

Task<bool> WriteSession::write(std::span<const std::byte> bytes) {
  const AsyncMutex::Guard step = co_await without_stop(step_.lock());
  if (has_ended()) co_return false;
  const std::uint64_t end = length_.value_or(Storage::k_max_length);
  TIDEMARK_ASSERT(written_ <= end, "no byte is written beyond the length");
  if (bytes.size() > end - written_) {
    core_.count([](StorageStats& stats) { ++stats.errors; });
    throw StorageError(Errc::length_exceeded, operation_, id_.view(), "");
  }
  const AppendStatus status = co_await write_steps(bytes);
  if (status == AppendStatus::committed) co_return true;
  co_await without_stop(finish(status, options_.checksum == nullptr));
  co_return false;
}

Task<AppendStatus> WriteSession::write_steps(std::span<const std::byte> bytes) {
  const std::stop_token owner = co_await current_stop_token();
  const std::stop_token newer = taken_over_.get_token();
  bool canceled = false;
  while (!bytes.empty() && !canceled && !owner.stop_requested() && !newer.stop_requested()) {
    const auto part = bytes.first(std::min(bytes.size(), k_step_bytes));
    try {
      co_await with_stop(storage_.write_chunk(id_, written_, part), newer);
      if (options_.checksum != nullptr) options_.checksum->update(part);
      written_ += part.size();
      bytes = bytes.subspan(part.size());
    } catch (...) {
      canceled = is_canceled(std::current_exception());
      if (!canceled) {
        fail();
        throw;
      }
    }
  }
  if (bytes.empty()) co_return AppendStatus::committed;
  co_return newer.stop_requested() ? AppendStatus::taken_over : AppendStatus::canceled;
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
  co_return result_.value_or(AppendResult{AppendStatus::committed, committed_, is_complete()});
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

void WriteSession::abandon() {
  core_.endings.spawn(end_session(shared_from_this(), AppendStatus::committed));
}

Task<void> WriteSession::end(AppendStatus status) {
  const AsyncMutex::Guard step = co_await without_stop(step_.lock());
  if (!has_ended()) co_await finish(status, options_.checksum == nullptr);
}

void WriteSession::on_taken_over() {
  const std::shared_ptr<WriteSession> self = shared_from_this();
  core_.count([](StorageStats& stats) { ++stats.take_overs; });
  taken_over_.request_stop();
  core_.endings.spawn(end_session(self, AppendStatus::taken_over));
}

Task<void> WriteSession::commit_written() {
  TIDEMARK_ASSERT(turn_.has_turn(), "who commits has the turn");
  if (written_ == committed_) co_return;
  // Durability::ordered is answered as `full`: the backend's own operations tell no more.
  if (options_.durability != Durability::none) co_await storage_.sync(id_);
  const bool moved = co_await storage_.update_offset_atomic(id_, committed_, written_);
  if (!moved || !length_) {
    // A deferred length may have been told meanwhile.
    const std::optional<Upload> upload = co_await storage_.get_upload(id_);
    if (!upload) throw StorageError(Errc::not_found, operation_, id_.view(), "deleted meanwhile");
    length_ = upload->length;
    if (!moved) {
      core_.count([](StorageStats& stats) { ++stats.conflicts; });
      result_ = AppendResult{AppendStatus::offset_conflict, upload->offset, upload->completed};
      turn_.end();
      co_return;
    }
  }
  const std::uint64_t bytes = written_ - std::exchange(committed_, written_);
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
  if (!result_) result_ = AppendResult{status, committed_, is_complete()};
  turn_.end();
}

void WriteSession::fail() {
  failure_ = std::current_exception();
  if (!is_canceled(failure_)) core_.count([](StorageStats& stats) { ++stats.errors; });
  turn_.end();
}

}  // namespace tidemark::detail
