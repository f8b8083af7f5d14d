#include <exception>
#include <string>
#include <utility>

#include <tidemark/engine/stop.hpp>
#include <tidemark/storage/detail/upload_files.hpp>

namespace tidemark::detail {
namespace {

constexpr const char* k_operation = "create";

/// Sets blocks aside for `length` bytes, and sees that enough stays free beside them.
Task<void> reserve_blocks(Store& store, const NewUpload& upload, File& file) {
  const std::uint64_t length = upload.length.value_or(0);
  const FilesystemStatus disk = co_await store.folder.filesystem();
  const std::uint64_t kept = store.options.min_free_bytes;
  if (disk.free_bytes < kept || disk.free_bytes - kept < length) {
    throw StorageError(Errc::no_space, k_operation, upload.id.view(),
                       std::to_string(disk.free_bytes) + " bytes are free");
  }
  if (length > 0) co_await file.allocate(length);
}

/// What is promised with a new upload: nothing when it is complete, or of unknown length.
std::uint64_t bytes_to_reserve(const NewUpload& upload) {
  const bool unfinished = upload.length && upload.offset < *upload.length;
  return unfinished ? *upload.length : 0;
}

/// Whether an INSERT that failed may still come to be.
bool is_ambiguous(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const std::system_error&) {  // It was refused, or never tried.
    return false;
  } catch (...) {
    return true;
  }
}

/// Removes a file that make_file made. Not when it has a row, or may have one: another process may
/// have been faster, and a COMMIT that failed may have happened.
Task<void> discard(Store& store, UploadId id, FileLock& file, bool ambiguous) {
  try {
    std::optional<UploadState> row;
    if (ambiguous) {
      row = co_await store.settle(id, Store::Next::remove);
    } else {
      row = co_await store.find_state(id);
    }
    if (row) co_return;
  } catch (...) {
    co_return;
  }
  co_await store.folder.unlink(id.c_str());
  co_await file.close();
}

/// Inserts the row of a file that is stable, and marks its parts.
Task<void> insert_row(Store& store, const NewUpload& upload, const char* operation) {
  auto work = [&](UploadRows& rows) {
    // Again, now that nobody else can promise more.
    check_reserved(rows, store, upload.id, bytes_to_reserve(upload), operation);
    if (!rows.insert(upload)) {
      throw StorageError(Errc::already_exists, operation, upload.id.view(), "");
    }
    for (const UploadId& part : upload.parts) rows.mark_partial(part);
  };
  co_await store.commits->run(work);
}

}  // namespace

void check_reserved(UploadRows& rows, const Store& store, const UploadId& id, std::uint64_t bytes,
                    const char* operation) {
  const std::optional<std::uint64_t>& most = store.options.max_reserved_bytes;
  if (!most || bytes == 0) return;
  const std::uint64_t reserved = rows.reserved_bytes();
  if (reserved <= *most && bytes <= *most - reserved) return;
  throw StorageError(Errc::quota_exceeded, operation, id.view(),
                     std::to_string(reserved) + " bytes are reserved");
}

void check_metadata(const Store& store, const UploadId& id, std::string_view json,
                    std::string_view extra) {
  if (json.size() + extra.size() > store.options.max_metadata_bytes) {
    throw StorageError(Errc::quota_exceeded, "set metadata", id.view(),
                       "more than max_metadata_bytes of metadata");
  }
}

NewUpload new_row(const Store& store, const UploadId& id, std::optional<std::uint64_t> length,
                  const Metadata& metadata, std::optional<SystemTime> expires_at) {
  if (length > Storage::k_max_length) {
    throw StorageError(Errc::invalid_argument, k_operation, id.view(), "no length is so large");
  }
  if (length > store.options.max_upload_bytes) {
    throw StorageError(Errc::quota_exceeded, k_operation, id.view(), "more than max_upload_bytes");
  }
  NewUpload upload{.id = id,
                   .length = length,
                   .metadata_json = metadata.to_json(),
                   .metadata_extra = metadata.to_extra_json(),
                   .created_at = store.environment().system_now()};
  check_metadata(store, id, upload.metadata_json, upload.metadata_extra);
  if (length != 0u) upload.expires_at = expires_at;  // What is complete never expires.
  return upload;
}

Task<FileLock> make_file(Store& store, UploadId id, const char* operation) {
  const std::optional<UploadState> taken = co_await store.find_state(id);
  if (taken) throw StorageError(Errc::already_exists, operation, id.view(), "");
  // O_EXCL would say no more: a file without a row is a leftover, and one with a row is found out
  // under its lock, which another process may have had since.
  while (true) {
    FileLock lock =
        co_await lock_file(store, id, Directory::Open::always, store.lock_deadline(), operation);
    const FileStatus status = co_await lock.file().status();
    const bool is_new = status.size == 0 && status.links == 1;
    Task<std::optional<UploadState>> look =
        is_new ? store.find_state(id) : store.settle(id, Store::Next::write);
    const std::optional<UploadState> row = co_await std::move(look);
    if (row) throw StorageError(Errc::already_exists, operation, id.view(), "");
    if (is_new) co_return lock;
    // A leftover, which a reader may still have open, or the application by another name.
    co_await store.folder.unlink(id.c_str());
    co_await lock.close();
  }
}

Task<void> add_upload(Store& store, const NewUpload& upload, FileLock& file, Task<void> fill,
                      const char* operation) {
  const FileStatus status = co_await file.file().status();
  std::exception_ptr error;
  try {
    co_await std::move(fill);
    if (store.options.durability != Durability::none) co_await store.names.sync();
    co_await insert_row(store, upload, operation);
  } catch (...) {
    error = std::current_exception();
  }
  if (error) {
    co_await without_stop(discard(store, upload.id, file, is_ambiguous(error)));
    std::rethrow_exception(error);
  }
  if (store.options.durability != Durability::none) {
    store.stable.note(upload.id, status, upload.offset);
  }
  store.core.count([](StorageStats& stats) { ++stats.uploads_created; });
}

Task<void> create(Store& store, NewUpload upload) {
  auto check = [&](UploadRows& rows) {
    check_reserved(rows, store, upload.id, bytes_to_reserve(upload), k_operation);
  };
  if (store.options.max_reserved_bytes) co_await store.reads->run(check);
  UploadTurns::Turn turn(store.core.turns, upload.id);
  co_await turn.take(turn.wait(), store.options.lock_timeout, k_operation);
  FileLock file = co_await make_file(store, upload.id, k_operation);
  co_await add_upload(store, upload, file, reserve_blocks(store, upload, file.file()), k_operation);
}

}  // namespace tidemark::detail
