#include <algorithm>
#include <system_error>

#include <tidemark/engine/assert.hpp>
#include <tidemark/engine/stop.hpp>
#include <tidemark/storage/detail/failure.hpp>
#include <tidemark/storage/detail/held_upload.hpp>

namespace tidemark::detail {

Task<FileLock> lock_file(Store& store, const UploadId& id, Directory::Open how, TimePoint deadline,
                         const char* operation) {
  try {
    co_return co_await FileLock::open(store.folder, id.c_str(), how, deadline);
  } catch (const std::system_error& error) {
    if (error.code() == std::errc::timed_out) {
      throw StorageError(Errc::lock_timeout, operation, id.view(), "another process has it");
    }
    if (!is_no_file(error)) throw;
    throw StorageError(Errc::corrupt, operation, id.view(), "its file is no regular file");
  }
}

void HeldUpload::fail(Errc code, const char* detail) const {
  throw StorageError(code, operation_, id_.view(), detail);
}

Task<bool> HeldUpload::lock(TimePoint deadline) {
  try {
    lock_ = co_await lock_file(store_, id_, Directory::Open::existing, deadline, operation_);
  } catch (const std::system_error& error) {
    if (error.code() != std::errc::no_such_file_or_directory) throw;
    co_return false;
  }
  status_ = co_await lock_.file().status();
  sync_failures_ = store_.syncs.failures();
  co_return true;
}

Task<void> HeldUpload::lock_and_read(TimePoint deadline, std::stop_token newer) {
  for (bool looked_before = false;; looked_before = true) {
    bool file_found = false;
    bool newer_came = false;
    try {
      file_found = co_await with_stop(lock(deadline), newer);
    } catch (...) {
      newer_came = is_canceled(std::current_exception()) && newer.stop_requested();
      if (!newer_came) throw;
    }
    state_ = co_await store_.find_state(id_);
    if (state_ && (file_found || newer_came)) co_return;
    // Between the INSERT of another implementation and its file, there is no upload yet.
    if (!state_ || state_->offset == 0) fail(Errc::not_found, "");
    // Another process may have made it since.
    if (looked_before) fail(Errc::corrupt, "its file is missing");
  }
}

Task<UploadState> HeldUpload::take(TimePoint deadline, std::stop_token newer) {
  co_await lock_and_read(deadline, newer);
  if (!lock_.owns_lock()) co_return *state_;
  if (status_.size < state_->offset)
    fail(Errc::corrupt, "its file has fewer bytes than its offset");
  if (store_.stable.is_poisoned(id_, status_)) {
    fail(Errc::io_error, "committed bytes may be lost, because their sync has failed");
  }
  prefix_stable_ = store_.stable.covers(id_, status_, state_->offset);
  const bool is_unknown = !prefix_stable_ && status_.size > 0;
  found_bytes_ = is_unknown || store_.stable.has_chunks(id_, status_);
  // Who wrote beyond the offset, or told the length, may have died in its COMMIT.
  const bool may_be_spoken_of = status_.size > state_->offset || !state_->length;
  unsettled_ = may_be_spoken_of && !state_->completed();
  co_return *state_;
}

Task<void> HeldUpload::settle() {
  if (!unsettled_) co_return;
  const std::optional<UploadState> now = co_await store_.settle(id_, Store::Next::write);
  if (!now) fail(Errc::not_found, "it was deleted meanwhile");
  if (now->offset != state_->offset) fail(Errc::busy, "another program moved it meanwhile");
  unsettled_ = false;
}

void HeldUpload::wrote(std::uint64_t end, bool stable) {
  status_.size = std::max(status_.size, end);
  dirty_ = dirty_ || !stable;
}

Task<void> HeldUpload::make_stable() {
  if (prefix_stable_ && !dirty_) co_return;
  try {
    // What others wrote may have failed to reach the disk before this one looked: only the file's
    // own sync still tells.
    if (prefix_stable_ && !found_bytes_) {
      co_await store_.syncs.sync(file(), sync_failures_);
    } else {
      co_await file().sync_data();
    }
    if (!prefix_stable_) co_await store_.names.sync();
  } catch (const std::system_error&) {  // Not without memory: then there was no sync.
    if (found_bytes_) store_.stable.poison(id_, status_);
    throw;
  }
  sync_failures_ = store_.syncs.failures();
  prefix_stable_ = true;
  dirty_ = found_bytes_ = false;
}

Task<void> HeldUpload::confirm(Durability durability) {
  TIDEMARK_ASSERT(lock_.owns_lock() && state_, "who confirms has the lock and has read the row");
  if (prefix_stable_ || state_->offset == 0 || durability == Durability::none) co_return;
  co_await make_stable();
  store_.stable.note(id_, status_, state_->offset);
}

Task<OffsetMove> HeldUpload::commit(std::uint64_t from, std::uint64_t to, Durability durability) {
  TIDEMARK_ASSERT(lock_.owns_lock() && state_, "who commits has the lock and has read the row");
  TIDEMARK_ASSERT(status_.size >= to, "no offset is committed ahead of its bytes");
  if (to > state_->length.value_or(to)) fail(Errc::length_exceeded, "");
  const bool completes = to == state_->length;
  if (completes && status_.size > *state_->length) {
    co_await settle();
    co_await file().truncate(*state_->length);
    status_.size = *state_->length;
    dirty_ = true;
  }
  if (durability != Durability::none) co_await make_stable();
  store_.stable.forget(id_);
  const OffsetMove move = co_await move_offset(from, to);
  const bool length_told = !state_->length && move.now.length && move.now.offset == from;
  if (length_told) {  // Meanwhile: a commit that completes the upload has to cut the file first.
    state_ = move.now;
    co_return co_await commit(from, to, durability);
  }
  if (!move.moved && move.now.offset == from) fail(Errc::length_exceeded, "");
  if (move.moved && durability != Durability::none) store_.stable.note(id_, status_, to);
  state_ = move.now;
  co_return move;
}

Task<OffsetMove> HeldUpload::move_offset(std::uint64_t from, std::uint64_t to) {
  auto work = [&](UploadRows& rows) {
    std::optional<UploadState> now = state_->length ? state_ : rows.find_state(id_);
    const bool length_told = now && now->length != state_->length;
    const bool moved = !length_told && rows.advance(id_, from, to);
    if (moved) {
      now->offset = to;
    } else if (!length_told) {
      now = rows.find_state(id_);
    }
    return std::pair(moved, now);
  };
  const std::pair<bool, std::optional<UploadState>> result = co_await store_.commits->run(work);
  if (!result.second) fail(Errc::not_found, "it was deleted meanwhile");
  co_return OffsetMove{result.first, *result.second};
}

}  // namespace tidemark::detail
