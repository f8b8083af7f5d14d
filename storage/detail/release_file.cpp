#include <exception>
#include <string>
#include <system_error>
#include <utility>

#include <tidemark/engine/stop.hpp>
#include <tidemark/storage/detail/copy_file.hpp>
#include <tidemark/storage/detail/upload_files.hpp>

namespace tidemark::detail {
namespace {

constexpr const char* k_operation = "release";

/// Whether `name` in `folder` is another name of the upload's file: an earlier release, cut short.
Task<bool> is_there(Directory& folder, const char* name, const FileStatus& file) {
  const std::optional<FileStatus> named = co_await folder.status(name);
  // The upload's own name is none.
  co_return named && named->links > 1 && named->same_file(file);
}

bool cannot_link(const std::system_error& error) {
  return error.code() == std::errc::cross_device_link ||
         error.code() == std::errc::operation_not_permitted ||
         error.code() == std::errc::too_many_links ||
         error.code() == std::errc::operation_not_supported;
}

/// Gives the file a second name. False where that cannot be.
Task<bool> link(Store& store, const UploadId& id, Directory& folder, const char* name) {
  try {
    co_await store.folder.link_to(id.c_str(), folder, name);
    co_return true;
  } catch (const std::system_error& error) {
    if (error.code() == std::errc::file_exists) {
      throw StorageError(Errc::already_exists, k_operation, id.view(),
                         "'" + (folder.path() / name).string() + "'");
    }
    if (!cannot_link(error)) throw;
    co_return false;
  }
}

Task<void> fill_copy(Store& store, HeldUpload& held, std::uint64_t length, Directory& folder,
                     const std::string& temporary) {
  File copy = co_await folder.open_file(temporary.c_str(), Directory::Open::exclusive);
  co_await copy_file(store, held.file(), length, copy, 0);
  co_await copy.sync_data();
  co_await copy.close();
}

/// For another file system: the whole copy is stable before it gets the name.
Task<void> copy_over(Store& store, HeldUpload& held, std::uint64_t length, Directory& folder,
                     const std::string& name) {
  const std::string temporary = temporary_name(store.environment());
  std::exception_ptr error;
  try {
    co_await fill_copy(store, held, length, folder, temporary);
    co_await folder.link_to(temporary.c_str(), folder, name.c_str());
  } catch (...) {
    error = std::current_exception();
  }
  co_await without_stop(folder.unlink(temporary.c_str()));
  if (error) std::rethrow_exception(error);
}

/// What follows once the bytes have their new name, which is stable first.
Task<void> forget(Store& store, const UploadId& id, HeldUpload& held, Directory& folder) {
  co_await folder.sync();
  auto erase_row = [&id](UploadRows& rows) { return rows.erase(id); };
  co_await store.commits->run_delete(erase_row);
  co_await erase_file(store, id, held);
}

}  // namespace

Task<void> release_file(Store& store, UploadId id, std::filesystem::path path) {
  if (!path.has_filename()) {
    throw StorageError(Errc::invalid_argument, k_operation, id.view(), "the path names no file");
  }
  const std::string name = path.filename().string();
  UploadTurns::Turn turn(store.core.turns, id);
  co_await turn.take(turn.wait(), store.options.lock_timeout, k_operation);
  HeldUpload held(store, id, k_operation);
  const UploadState state = co_await held.take(store.lock_deadline());
  if (!state.completed()) {
    throw StorageError(Errc::invalid_argument, k_operation, id.view(), "it is not complete");
  }
  if (held.status().size > *state.length) {  // The tail of a writer that lost.
    co_await held.file().truncate(*state.length);
    held.wrote(*state.length, false);
  }
  co_await held.make_stable();
  std::filesystem::path parent = path.parent_path();
  if (parent.empty()) parent = ".";
  Directory folder = co_await Directory::open(std::move(parent), false);
  const bool there = co_await is_there(folder, name.c_str(), held.status());
  if (!there) {
    const bool linked = co_await link(store, id, folder, name.c_str());
    if (!linked) co_await copy_over(store, held, *state.length, folder, name);
  }
  co_await without_stop(forget(store, id, held, folder));
}

}  // namespace tidemark::detail
