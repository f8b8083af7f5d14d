#include <algorithm>
#include <list>
#include <set>
#include <string>
#include <utility>

#include <tidemark/engine/assert.hpp>
#include <tidemark/storage/detail/copy_file.hpp>
#include <tidemark/storage/detail/upload_files.hpp>

namespace tidemark::detail {
namespace {

constexpr const char* k_operation = "concatenate";
/// Each holds a descriptor while the bytes are copied.
constexpr std::size_t k_max_parts = 512;

/// One of the distinct parts, held.
struct Part {
  Part(Store& store, const UploadId& which)
      : id(which), turn(store.core.turns, which), held(store, which, k_operation) {}

  const UploadId id;
  UploadTurns::Turn turn;
  HeldUpload held;
  std::uint64_t length = 0;
};
using Parts = std::list<Part>;

[[noreturn]] void refuse(const UploadId& id, const std::string& why) {
  throw StorageError(Errc::invalid_argument, k_operation, id.view(), why);
}

/// Whether the upload is there already. Throws when the id is something else's.
Task<bool> is_done(Store& store, const NewUpload& upload) {
  auto find = [&upload](UploadRows& rows) { return rows.find(upload.id); };
  const std::optional<Upload> present = co_await store.reads->run(find);
  if (!present) co_return false;
  if (present->completed && present->parts == upload.parts) co_return true;
  throw StorageError(Errc::already_exists, k_operation, upload.id.view(), "");
}

/// In the order of the ids, so that two that share some cannot wait for each other. Of `whole` only
/// the turn: its file is not made yet.
Task<void> hold_parts(Store& store, const std::set<UploadId>& ids, const UploadId& whole,
                      Parts& parts) {
  const TimePoint deadline = store.lock_deadline();
  for (const UploadId& id : ids) {
    Part& part = parts.emplace_back(store, id);
    co_await part.turn.take(part.turn.wait(), store.options.lock_timeout, k_operation);
    if (id == whole) continue;
    const UploadState state = co_await part.held.take(deadline);
    if (!state.completed()) refuse(id, "it is not complete");
    part.length = *state.length;
  }
}

Part& find(Parts& parts, const UploadId& id) {
  return *std::ranges::find(parts, id, &Part::id);
}

/// Copies the parts into the new file, and makes it stable.
Task<void> fill(Store& store, File& file, Parts& parts, const NewUpload& upload) {
  std::uint64_t total = 0;
  for (const UploadId& id : upload.parts) {
    Part& part = find(parts, id);
    co_await copy_file(store, part.held.file(), part.length, file, total);
    total += part.length;
  }
  TIDEMARK_ASSERT(total == upload.offset, "the parts are as long as their rows said");
  if (store.options.durability == Durability::none) co_return;
  co_await file.sync_data();
}

/// The sum of the lengths. Throws when it is more than an upload may have.
std::uint64_t total_length(Store& store, Parts& parts, const NewUpload& upload) {
  std::uint64_t total = 0;
  for (const UploadId& id : upload.parts) {
    const std::uint64_t length = find(parts, id).length;
    if (length > Storage::k_max_length - total) refuse(id, "the parts are too long together");
    total += length;
  }
  if (total > store.options.max_upload_bytes) {
    throw StorageError(Errc::quota_exceeded, k_operation, upload.id.view(),
                       "more than max_upload_bytes");
  }
  return total;
}

Task<void> join(Store& store, Parts& parts, NewUpload& upload) {
  upload.length = upload.offset = total_length(store, parts, upload);
  FileLock file = co_await make_file(store, upload.id, k_operation);
  co_await add_upload(store, upload, file, fill(store, file.file(), parts, upload), k_operation);
  store.core.count([](StorageStats& stats) { ++stats.uploads_completed; });
}

}  // namespace

Task<void> join_files(Store& store, NewUpload upload) {
  std::set<UploadId> ids(upload.parts.begin(), upload.parts.end());
  if (ids.empty()) refuse(upload.id, "there are no parts");
  if (ids.size() > k_max_parts) refuse(upload.id, "there are more than 512 parts");
  if (!ids.insert(upload.id).second) refuse(upload.id, "it is one of its parts");
  const bool done_before = co_await is_done(store, upload);
  if (done_before) co_return;
  Parts parts;
  co_await hold_parts(store, ids, upload.id, parts);
  try {
    co_await join(store, parts, upload);
    co_return;
  } catch (const StorageError& error) {
    if (error.code() != Errc::already_exists) throw;
  }
  // Another process was faster, perhaps with the same parts.
  const bool done_meanwhile = co_await is_done(store, upload);
  if (!done_meanwhile) throw StorageError(Errc::io_error, k_operation, upload.id.view(), "it went");
}

}  // namespace tidemark::detail
