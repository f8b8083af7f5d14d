#include <algorithm>
#include <system_error>

#include <tidemark/engine/assert.hpp>
#include <tidemark/engine/stop.hpp>
#include <tidemark/storage/detail/failure.hpp>
#include <tidemark/storage/detail/held_upload.hpp>

namespace tidemark::detail {

void HeldUpload::fail(Errc code, const char* detail) const {
  throw StorageError(code, operation_, id_.view(), detail);
}

Task<bool> HeldUpload::lock(TimePoint deadline) {
  try {
    lock_ =
        co_await FileLock::open(store_.folder, id_.c_str(), Directory::Open::existing, deadline);
  } catch (const std::system_error& error) {
    if (error.code() == std::errc::no_such_file_or_directory) co_return false;
    if (error.code() == std::errc::timed_out) fail(Errc::lock_timeout, "another process has it");
    if (is_no_file(error)) fail(Errc::corrupt, "its file is no regular file");
    throw;
  }
  status_ = co_await lock_.file().status();
  sync_failures_ = store_.syncs.failures();
  co_return true;
}

Task<UploadState> HeldUpload::take(TimePoint deadline, std::stop_token newer) {
  bool exists = true;
  try {
    exists = co_await with_stop(lock(deadline), newer);
  } catch (...) {
    if (!is_canceled(std::current_exception()) || !newer.stop_requested()) throw;
  }
  state_ = co_await store_.find_state(id_);
  // Between the INSERT of another implementation and its file, there is no upload yet.
  if (!state_ || (!exists && state_->offset == 0)) fail(Errc::not_found, "");
  if (!exists) fail(Errc::corrupt, "its file is missing");
  if (!lock_.owns_lock()) co_return *state_;
  if (status_.size < state_->offset)
    fail(Errc::corrupt, "its file has fewer bytes than its offset");
  if (store_.stable.is_poisoned(id_, status_)) {
    fail(Errc::io_error, "committed bytes may be lost, because their sync has failed");
  }
  prefix_stable_ = store_.stable.covers(id_, status_, state_->offset);
  co_return *state_;
}

void HeldUpload::wrote(std::uint64_t end, bool stable) {
  status_.size = std::max(status_.size, end);
  dirty_ = dirty_ || !stable;
}

Task<void> HeldUpload::make_stable() {
  if (prefix_stable_ && !dirty_) co_return;
  try {
    co_await store_.syncs.sync(file(), sync_failures_);
    if (!prefix_stable_) co_await store_.names.sync();
  } catch (...) {
    const bool prefix = !prefix_stable_ && state_ && state_->offset > 0;
    if (prefix || found_bytes_) store_.stable.poison(id_, status_);
    throw;
  }
  sync_failures_ = store_.syncs.failures();
  prefix_stable_ = true;
  dirty_ = false;
}

Task<OffsetMove> HeldUpload::commit(std::uint64_t from, std::uint64_t to, Durability durability) {
  TIDEMARK_ASSERT(lock_.owns_lock() && state_, "who commits has the lock and has read the row");
  TIDEMARK_ASSERT(status_.size >= to, "no offset is committed ahead of its bytes");
  const bool completes = state_->length && to >= *state_->length;
  if (completes && status_.size > *state_->length) {
    co_await file().truncate(*state_->length);
    status_.size = *state_->length;
    dirty_ = true;
  }
  if (durability != Durability::none) co_await make_stable();
  store_.stable.forget(id_);
  const OffsetMove move = co_await move_offset(from, to);
  if (move.moved && durability != Durability::none) store_.stable.note(id_, status_, to);
  state_ = move.now;
  co_return move;
}

Task<OffsetMove> HeldUpload::move_offset(std::uint64_t from, std::uint64_t to) {
  auto work = [&](UploadRows& rows) {
    const bool moved = rows.advance(id_, from, to);
    // A deferred length may have been told meanwhile.
    const bool known = moved && state_->length;
    std::optional<UploadState> now = known ? state_ : rows.find_state(id_);
    if (now && moved) now->offset = to;
    return std::pair(moved, now);
  };
  const std::pair<bool, std::optional<UploadState>> result = co_await store_.commits->run(work);
  if (!result.second) fail(Errc::not_found, "it was deleted meanwhile");
  if (!result.first && result.second->offset == from) fail(Errc::length_exceeded, "");
  co_return OffsetMove{result.first, *result.second};
}

}  // namespace tidemark::detail
