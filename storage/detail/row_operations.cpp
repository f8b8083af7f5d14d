#include <algorithm>
#include <string>
#include <system_error>

#include <tidemark/storage/detail/file_reader.hpp>
#include <tidemark/storage/detail/held_upload.hpp>
#include <tidemark/storage/detail/row_operations.hpp>
#include <tidemark/storage/detail/upload_files.hpp>

namespace tidemark::detail {
namespace {

constexpr std::size_t k_page_rows = 1000;
constexpr std::size_t k_max_page_rows = 100'000;  // Whoever asks for more gets more pages.

[[noreturn]] void fail(Errc code, const char* operation, const UploadId& id,
                       const std::string& detail = {}) {
  throw StorageError(code, operation, id.view(), detail);
}

/// An upload that is held for one operation, with its turn.
struct Hold {
  Hold(Store& which, const UploadId& id, const char* what)
      : store(which), turn(which.core.turns, id), upload(which, id, what), operation(what) {}

  Store& store;
  UploadTurns::Turn turn;
  HeldUpload upload;
  const char* const operation;

  Executor& executor() const { return store.executor(); }

  Task<UploadState> take() {
    co_await turn.take(turn.wait(), store.options.lock_timeout, operation);
    co_return co_await upload.take(store.lock_deadline());
  }
};

/// Commits what write_chunk wrote up to `next`. False when the upload stands elsewhere.
Task<bool> commit_chunks(Hold& hold, const UploadId& id, const UploadState& state,
                         std::uint64_t next) {
  if (next > state.length.value_or(hold.store.options.max_upload_bytes)) {
    fail(Errc::length_exceeded, hold.operation, id);
  }
  if (next > hold.upload.status().size) {
    fail(Errc::corrupt, hold.operation, id, "its file has fewer bytes");
  }
  hold.upload.found_bytes();
  const OffsetMove move =
      co_await hold.upload.commit(state.offset, next, hold.store.options.durability);
  if (move.moved) hold.store.core.turns.note_move(id);
  co_return move.moved;
}

}  // namespace

Task<std::optional<Upload>> find_upload(Store& store, UploadId id) {
  auto work = [&id](UploadRows& rows) { return rows.find(id); };
  co_return co_await store.reads->run(work);
}

Task<UploadPage> list(Store& store, std::optional<UploadId> after, std::size_t limit) {
  if (limit == 0) throw StorageError(Errc::invalid_argument, "list", "", "the limit is at least 1");
  limit = std::min(limit, k_max_page_rows);
  auto work = [&](UploadRows& rows) { return rows.list(after, limit + 1); };
  RowPage rows = co_await store.reads->run(work);
  UploadPage page{.uploads = std::move(rows.uploads)};
  if (page.uploads.size() > limit) {
    page.uploads.pop_back();
    page.next = page.uploads.back().id;
  } else if (page.uploads.size() + rows.corrupt.size() > limit) {
    page.next = rows.last;
  }
  co_return page;
}

Task<std::vector<UploadId>> find_expired(Store& store) {
  const SystemTime now = store.environment().system_now();
  ExpiryCursor cursor;
  std::vector<UploadId> all;
  auto work = [&](UploadRows& rows) { return rows.expired(now, cursor, k_page_rows); };
  while (true) {
    const std::vector<UploadId> page = co_await store.reads->run(work);
    all.insert(all.end(), page.begin(), page.end());
    if (page.empty()) break;
  }
  std::ranges::sort(all);
  co_return all;
}

Task<std::vector<std::byte>> read_beginning(Store& store, UploadId id, std::size_t max_bytes) {
  const std::unique_ptr<UploadReader> reader = co_await open_file_reader(store, id);
  std::vector<std::byte> bytes(
      static_cast<std::size_t>(std::min<std::uint64_t>(reader->committed_offset(), max_bytes)));
  const std::size_t got = co_await reader->read_at(0, bytes);
  bytes.resize(got);
  co_return bytes;
}

Task<void> set_length(Store& store, UploadId id, std::uint64_t length) {
  constexpr const char* k_operation = "set length";
  if (length > Storage::k_max_length) {
    fail(Errc::invalid_argument, k_operation, id, "no length is so large");
  }
  if (length > store.options.max_upload_bytes) {
    fail(Errc::quota_exceeded, k_operation, id, "more than max_upload_bytes");
  }
  // A length at the offset completes the upload, which asks for its lock and a file cut to it.
  auto set = [&](UploadRows& rows) {
    const std::optional<UploadState> state = rows.find_state(id);
    if (!state) fail(Errc::not_found, k_operation, id);
    if (state->length) fail(Errc::invalid_argument, k_operation, id, "it is known already");
    if (length < state->offset) fail(Errc::invalid_argument, k_operation, id, "below the offset");
    if (length == state->offset) return false;
    check_reserved(rows, store, id, length, k_operation);
    return rows.set_length(id, length);
  };
  const bool is_set = co_await store.commits->run(set);
  if (is_set) co_return;
  Hold hold(store, id, k_operation);
  const UploadState state = co_await hold.take();
  if (state.length) fail(Errc::invalid_argument, k_operation, id, "it is known already");
  if (length < state.offset) fail(Errc::invalid_argument, k_operation, id, "below the offset");
  if (hold.upload.status().size > length) {
    co_await hold.upload.settle();
    co_await hold.upload.file().truncate(length);
    hold.upload.wrote(0, false);
  }
  if (store.options.durability != Durability::none) co_await hold.upload.make_stable();
  store.stable.forget(id);  // Should the COMMIT fail, who writes next settles it.
  auto complete = [&](UploadRows& rows) { return rows.set_length(id, length); };
  const bool completed = co_await store.commits->run(complete);
  if (!completed) fail(Errc::invalid_argument, k_operation, id, "it is below the offset, or known");
  store.core.turns.note_move(id);
}

Task<void> set_expiry(Store& store, UploadId id, std::optional<SystemTime> expires_at) {
  auto work = [&](UploadRows& rows) { return rows.set_expiry(id, expires_at); };
  const bool found = co_await store.commits->run(work);
  if (!found) fail(Errc::not_found, "set expiry", id);
}

Task<void> set_metadata(Store& store, UploadId id, Metadata metadata) {
  const std::string json = metadata.to_json();
  const std::string extra = metadata.to_extra_json();
  check_metadata(store, id, json, extra);
  auto work = [&](UploadRows& rows) { return rows.set_metadata(id, json, extra); };
  const bool found = co_await store.commits->run(work);
  if (!found) fail(Errc::not_found, "set metadata", id);
}

Task<void> write_chunk(Store& store, UploadId id, std::uint64_t offset,
                       std::span<const std::byte> bytes) {
  constexpr const char* k_operation = "write";
  if (offset > Storage::k_max_length) {
    fail(Errc::invalid_argument, k_operation, id, "no offset is so large");
  }
  Hold hold(store, id, k_operation);
  const UploadState state = co_await hold.take();
  if (offset < state.offset) {
    fail(Errc::invalid_argument, k_operation, id, "below the committed offset");
  }
  const std::uint64_t end = state.length.value_or(store.options.max_upload_bytes);
  if (offset > end || bytes.size() > end - offset) fail(Errc::length_exceeded, k_operation, id);
  co_await hold.upload.settle();
  store.stable.note_chunk(id);
  co_await hold.upload.file().write_at(offset, bytes);
}

Task<void> sync_file(Store& store, UploadId id) {
  Hold hold(store, id, "sync");
  co_await hold.take();
  hold.upload.found_bytes();
  co_await hold.upload.make_stable();
}

Task<void> raise_offset(Store& store, UploadId id, std::uint64_t offset) {
  constexpr const char* k_operation = "update of offset";
  if (offset > Storage::k_max_length) {
    fail(Errc::invalid_argument, k_operation, id, "no offset is so large");
  }
  Hold hold(store, id, k_operation);
  const UploadState state = co_await hold.take();
  if (offset <= state.offset) {
    co_return co_await hold.upload.confirm(store.options.durability);
  }
  const bool moved = co_await commit_chunks(hold, id, state, offset);
  if (!moved) fail(Errc::busy, k_operation, id, "another program moved it meanwhile");
}

Task<bool> move_offset(Store& store, UploadId id, std::uint64_t expected, std::uint64_t next) {
  constexpr const char* k_operation = "update of offset";
  if (next < expected || next > Storage::k_max_length) {
    fail(Errc::invalid_argument, k_operation, id,
         "the next offset is below the expected one, or too large");
  }
  const std::optional<UploadState> row = co_await store.find_state(id);
  if (!row || row->offset != expected) co_return false;
  Hold hold(store, id, k_operation);
  UploadState state;
  try {
    state = co_await hold.take();
  } catch (const StorageError& error) {
    if (error.code() != Errc::not_found) throw;
    co_return false;  // Deleted since.
  }
  if (state.offset != expected) co_return false;
  if (next > expected) co_return co_await commit_chunks(hold, id, state, next);
  co_await hold.upload.confirm(store.options.durability);
  co_return true;
}

}  // namespace tidemark::detail
