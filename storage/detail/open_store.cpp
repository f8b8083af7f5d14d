#include <algorithm>
#include <chrono>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <sqlite3.h>

#include <tidemark/engine/sleep_for.hpp>
#include <tidemark/storage/detail/open_store.hpp>
#include <tidemark/storage/detail/reserve_file.hpp>
#include <tidemark/storage/detail/schema.hpp>
#include <tidemark/storage/detail/step_thread.hpp>

namespace tidemark::detail {
namespace {

using namespace std::chrono_literals;

constexpr const char* k_operation = "open";
constexpr std::chrono::nanoseconds k_busy_pause = 5ms;

[[noreturn]] void refuse(Errc code, const std::filesystem::path& path, const char* why) {
  throw StorageError(code, k_operation, "", "'" + path.string() + "': " + why);
}

/// False: it is new, and may not be; it stays empty.
bool make_database(const StorageOptions& options, bool may_be_new) {
  Database database = open_connection(options, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE);
  if (sqlite3_db_readonly(database.handle(), "main") == 1) {
    refuse(Errc::io_error, options.db_path, "it can only be read");
  }
  if (!may_be_new && is_new_database(database)) return false;
  create_schema(database);
  // What a crash left in the log may not be stable yet, and is about to be read. Others may be
  // using the log: then it was theirs to recover.
  const int code = sqlite3_wal_checkpoint_v2(database.handle(), "main", SQLITE_CHECKPOINT_TRUNCATE,
                                             nullptr, nullptr);
  if ((code & 0xff) == SQLITE_IOERR) throw SqliteError(database.handle(), code, "checkpoint");
  return true;
}

/// The same on a full disk, where SQLite's files beside the database find their place in the
/// reserve. The want of space has many names: on XFS it is ENOENT, because SQLite then tries to
/// read a file that it could not make.
bool make_database_on_full_disk(const StorageOptions& options, bool may_be_new) {
  try {
    return make_database(options, may_be_new);
  } catch (const SqliteError& error) {
    const int code = error.primary_code();
    const bool may_be_full = code == SQLITE_FULL || code == SQLITE_IOERR || code == SQLITE_CANTOPEN;
    ReserveFile reserve(options.db_path.string(), vfs_of(options));
    if (!may_be_full || !reserve.release()) throw;
  }
  return make_database(options, may_be_new);
}

/// Makes or migrates the database; it blocks. Throws SqliteError (busy) while others lock it.
bool prepare(const StorageOptions& options, bool may_be_new) {
  try {
    return make_database_on_full_disk(options, may_be_new);
  } catch (const SqliteError& error) {
    if (error.errc() == Errc::busy) throw;
    refuse(error.errc(), options.db_path, error.what());
  }
}

Task<Directory> open_folder(std::filesystem::path path, const StorageOptions& options) {
  Directory folder = co_await Directory::open(path, true);
  const FilesystemStatus status = co_await folder.filesystem();
  if (status.is_network && !options.allow_network_filesystem) {
    refuse(Errc::invalid_argument, path, "it is on a network file system");
  }
  co_return folder;
}

Task<bool> has_uploads(Directory& folder) {
  const std::vector<std::string> names = co_await folder.list();
  co_return std::ranges::any_of(
      names, [](const std::string& name) { return UploadId::parse(name).has_value(); });
}

/// Runs `step` until no other process is in its way.
template <class Step>
Task<void> run_until_free(StepThread& thread, Environment& environment,
                          const StorageOptions& options, Step& step) {
  const TimePoint deadline = later(environment.now(), options.commit_timeout);
  while (true) {
    try {
      co_await thread.run(step);
      co_return;
    } catch (const SqliteError& error) {
      if (error.errc() != Errc::busy || environment.now() >= deadline) throw;
    }
    co_await sleep_for(k_busy_pause);
  }
}

}  // namespace

Task<std::unique_ptr<Store>> open_store(StorageCore& core, StorageOptions options,
                                        std::size_t bytes_in_flight) {
  Environment& environment = core.executor().environment();
  if (options.db_path.empty() || options.upload_dir.empty()) {
    refuse(Errc::invalid_argument, options.db_path, "db_path or upload_dir is empty");
  }
  // Connections are opened later, too, when the process may stand elsewhere.
  options.db_path = std::filesystem::absolute(options.db_path);
  options.upload_dir = std::filesystem::absolute(options.upload_dir);
  Directory uploads = co_await open_folder(options.upload_dir, options);
  Directory above = co_await open_folder(options.db_path.parent_path(), options);
  const std::string name = options.db_path.filename().string();
  if (uploads.is_same(above) && UploadId::parse(name)) {
    refuse(Errc::invalid_argument, options.db_path, "an upload could have that name");
  }
  StepThread thread(environment, "tidemark-open");
  auto store = std::make_unique<Store>(core, options, std::move(uploads), bytes_in_flight);
  bool may_be_new = false;
  bool prepared = false;
  auto prepare_database = [&] { prepared = prepare(options, may_be_new); };
  co_await run_until_free(thread, environment, options, prepare_database);
  if (!prepared) {
    const bool has_files = co_await has_uploads(store->folder);
    may_be_new = !has_files;
    co_await run_until_free(thread, environment, options, prepare_database);  // Or another did.
  }
  if (!prepared) {  // A sweep would remove them all.
    refuse(Errc::corrupt, options.db_path, "it is new, but the upload folder has files");
  }
  auto connect = [&] { store->start_threads(); };
  co_await run_until_free(thread, environment, options, connect);
  co_await above.sync();
  co_return store;
}

Task<void> close_store(Store& store) {
  StepThread thread(store.environment(), "tidemark-close");
  auto stop = [&] { store.stop_threads(); };
  co_await thread.run(stop);
}

}  // namespace tidemark::detail
