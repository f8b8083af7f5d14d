#include <algorithm>
#include <list>
#include <system_error>

#include <tidemark/engine/assert.hpp>
#include <tidemark/engine/perform.hpp>
#include <tidemark/storage/detail/upload_files.hpp>

namespace tidemark::detail {
namespace {

/// Each holds a descriptor and a lock for a moment.
constexpr std::size_t k_batch_uploads = 128;

/// An expired upload on its way out.
struct Leaving {
  Leaving(Store& store, const UploadId& which)
      : id(which), turn(store.core.turns, which), held(store, which, "cleanup") {}

  const UploadId id;
  UploadTurns::Turn turn;
  HeldUpload held;
  bool gone = false;
};
using Batch = std::list<Leaving>;

/// Takes what of `ids` nobody else has.
Task<void> take_free(Store& store, const std::vector<UploadId>& ids, Batch& batch) {
  for (const UploadId& id : ids) {
    Leaving& leaving = batch.emplace_back(store, id);
    bool free = leaving.turn.try_take();
    if (free) {
      try {
        co_await leaving.held.lock(TimePoint::min());
      } catch (const std::system_error& error) {  // An operation on it will say what is wrong.
        if (is_canceled(error)) throw;
        free = false;
      }
    }
    if (!free) batch.pop_back();
  }
}

Task<void> erase_rows(Store& store, Batch& batch, SystemTime now) {
  auto work = [&](UploadRows& rows) {
    for (Leaving& leaving : batch) {
      leaving.gone = false;
      try {  // Again, now that nobody can change it.
        const std::optional<UploadState> state = rows.find_state(leaving.id);
        leaving.gone = state && state->expired(now) && rows.erase(leaving.id);
      } catch (const StorageError&) {
        // It contradicts itself by now: it stays, and the others go.
      }
    }
  };
  if (!batch.empty()) co_await store.commits->run_delete(work);
}

}  // namespace

Task<void> erase_file(Store& store, const UploadId& id, HeldUpload& held) {
  // Without the lock another process may have made the upload anew.
  if (held.file().is_open()) {
    co_await store.folder.unlink(id.c_str());
    co_await held.close();
  }
  store.stable.forget(id);
  store.core.turns.note_move(id);
  store.core.count([](StorageStats& stats) { ++stats.uploads_deleted; });
}

Task<void> erase(Store& store, UploadId id) {
  UploadTurns::Turn turn(store.core.turns, id);
  co_await turn.take(turn.go_first(), store.options.lock_timeout, "delete");
  HeldUpload held(store, id, "delete");
  bool is_no_file = false;  // It has no lock either.
  try {
    co_await held.lock(store.lock_deadline());
  } catch (const StorageError& error) {
    if (error.code() != Errc::corrupt) throw;
    is_no_file = true;
  }
  const bool has_file = is_no_file || held.file().is_open();
  auto work = [&](UploadRows& rows) {
    const bool erased = rows.erase(id);
    // A row whose COMMIT failed could come back without its file: see Store::settle.
    if (!erased && has_file && store.options.durability != Durability::none) rows.touch();
    return erased;
  };
  const bool existed = co_await store.commits->run_delete(work);
  if (is_no_file) co_await store.folder.unlink(id.c_str());
  if (existed || held.file().is_open()) co_await erase_file(store, id, held);
}

Task<std::size_t> erase_expired(Store& store) {
  const SystemTime now = store.environment().system_now();
  std::size_t count = 0;
  ExpiryCursor cursor;
  while (true) {
    auto find = [&](UploadRows& rows) { return rows.expired(now, cursor, k_batch_uploads); };
    const std::vector<UploadId> ids = co_await store.reads->run(find);
    if (ids.empty()) co_return count;
    Batch batch;
    co_await take_free(store, ids, batch);
    co_await erase_rows(store, batch, now);
    for (Leaving& leaving : batch) {
      if (!leaving.gone) continue;
      co_await erase_file(store, leaving.id, leaving.held);
      ++count;
    }
  }
}

}  // namespace tidemark::detail
