#include <exception>
#include <optional>
#include <string>
#include <utility>

#include <sqlite3.h>

#include <tidemark/engine/stop.hpp>
#include <tidemark/io/directory.hpp>
#include <tidemark/storage/detail/failure.hpp>
#include <tidemark/storage/detail/row_backup.hpp>
#include <tidemark/storage/detail/schema.hpp>
#include <tidemark/storage/detail/step_thread.hpp>
#include <tidemark/storage/detail/store.hpp>
#include <tidemark/storage/detail/upload_rows.hpp>

namespace tidemark::detail {
namespace {

constexpr const char* k_operation = "backup";
constexpr std::size_t k_page_uploads = 1000;

NewUpload to_row(const Upload& upload) {
  return {.id = upload.id,
          .length = upload.length,
          .offset = upload.offset,
          .metadata_json = upload.metadata.to_json(),
          .metadata_extra = upload.metadata.to_extra_json(),
          .created_at = upload.created_at,
          .expires_at = upload.expires_at,
          .parts = upload.parts};
}

void insert(UploadRows& rows, const UploadPage& page) {
  for (const Upload& upload : page.uploads) {
    if (!rows.insert(to_row(upload))) {
      throw StorageError(Errc::corrupt, k_operation, upload.id.view(), "it was listed twice");
    }
    if (upload.is_partial) rows.mark_partial(upload.id);
  }
}

/// Fills the database at `path`, on the thread.
Task<void> fill(Storage& storage, const std::string& path, StepThread& thread,
                std::optional<UploadRows>& rows) {
  auto open = [&] {
    Database database(path, SQLITE_OPEN_READWRITE);
    create_schema(database);
    rows.emplace(std::move(database));
    rows->database().exec("BEGIN");
  };
  co_await thread.run(open);
  UploadPage page;
  auto insert_page = [&] { insert(*rows, page); };
  do {
    page = co_await storage.list_uploads(page.next, k_page_uploads);
    co_await thread.run(insert_page);
  } while (page.next);
  auto commit = [&] { rows->database().exec("COMMIT"); };
  co_await thread.run(commit);
}

Task<void> make(Storage& storage, const std::string& path) {
  StepThread thread(storage.executor().environment(), "tidemark-backup");
  std::optional<UploadRows> rows;
  std::exception_ptr error;
  try {
    co_await fill(storage, path, thread, rows);
  } catch (...) {
    error = std::current_exception();
  }
  auto close = [&] { rows.reset(); };  // Which may roll back, and so belongs on the thread as well.
  co_await thread.run(close);
  if (error) std::rethrow_exception(error);
}

/// A plain copy of the database by SQLite's online backup.
Task<void> copy_database(Store& store, const std::string& path) {
  StepThread thread(store.environment(), "tidemark-backup");
  auto copy = [&] {
    const Database from = open_connection(store.options, SQLITE_OPEN_READWRITE);
    Database to(path, SQLITE_OPEN_READWRITE, vfs_of(store.options));
    sqlite3_backup* const backup = sqlite3_backup_init(to.handle(), "main", from.handle(), "main");
    if (backup == nullptr) throw SqliteError(to.handle(), sqlite3_errcode(to.handle()), "backup");
    const int stepped = sqlite3_backup_step(backup, -1);
    const int finished = sqlite3_backup_finish(backup);  // Which does not tell that it was busy.
    if (finished != SQLITE_OK) throw SqliteError(to.handle(), finished, "backup");
    if (stepped != SQLITE_DONE) throw SqliteError(nullptr, stepped, "backup");
    to.exec("PRAGMA journal_mode = DELETE");  // One file, without a log beside it.
  };
  co_await thread.run(copy);
}

/// Makes a file at `path` that `fill` fills; what fails removes it.
Task<void> create_and_fill(std::filesystem::path path, Task<void> fill) {
  const std::string name = path.filename().string();
  const std::string journal = name + "-journal";
  const std::filesystem::path parent = path.has_parent_path() ? path.parent_path() : ".";
  Directory folder = co_await Directory::open(parent, false);
  // SQLite itself cannot be told to refuse a file that exists.
  File file = co_await folder.open_file(name.c_str(), Directory::Open::exclusive);
  std::exception_ptr error;
  try {
    co_await file.close();
    co_await std::move(fill);
    co_await folder.sync();
  } catch (...) {
    error = std::current_exception();
  }
  if (!error) co_return;
  co_await without_stop(folder.unlink(journal.c_str()));
  co_await without_stop(folder.unlink(name.c_str()));
  std::rethrow_exception(error);
}

void check_path(const std::filesystem::path& path) {
  if (path.has_filename()) return;
  throw StorageError(Errc::invalid_argument, k_operation, "", "the path names no file");
}

}  // namespace

Task<void> back_up_rows(Storage& storage, std::filesystem::path path) {
  check_path(path);
  const std::string name = path.string();
  try {
    co_await create_and_fill(std::move(path), make(storage, name));
  } catch (...) {
    throw_as_storage_error(std::current_exception(), k_operation, "");
  }
}

Task<void> back_up_database(Store& store, std::filesystem::path path) {
  check_path(path);
  const std::string name = path.string();
  auto look = [](UploadRows&) {};
  co_await store.reads->run(look);  // Throws when another file stands in the database's place.
  co_await create_and_fill(std::move(path), copy_database(store, name));
}

}  // namespace tidemark::detail
