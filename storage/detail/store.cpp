#include <utility>

#include <sqlite3.h>

#include <tidemark/storage/detail/store.hpp>

namespace tidemark::detail {
namespace {

constexpr std::size_t k_copies_bytes = std::size_t{8} << 20;

}  // namespace

const char* vfs_of(const StorageOptions& options) {
  return options.sqlite_vfs.empty() ? nullptr : options.sqlite_vfs.c_str();
}

Database open_connection(const StorageOptions& options, int flags) {
  Database database(options.db_path.string(), flags | SQLITE_OPEN_NOMUTEX, vfs_of(options));
  database.exec("PRAGMA wal_autocheckpoint = 0");
  database.exec(options.durability == Durability::none ? "PRAGMA synchronous = OFF"
                                                       : "PRAGMA synchronous = FULL");
  return database;
}

Database connect(const StorageOptions& options) {
  Database database = open_connection(options, SQLITE_OPEN_READWRITE);
  Statement mode(database, "PRAGMA journal_mode = WAL");
  const bool answered = mode.step();
  if (answered && mode.text(0) == "wal") return database;
  throw StorageError(Errc::io_error, "open", "",
                     "'" + options.db_path.string() + "': it takes no write-ahead log");
}

Store::Store(StorageCore& shared, StorageOptions storage_options, Directory upload_folder,
             std::size_t bytes_in_flight)
    : core(shared),
      options(std::move(storage_options)),
      folder(std::move(upload_folder)),
      buffers(executor(), bytes_in_flight),
      copies(executor(), k_copies_bytes),
      reserve_(options.db_path.string(), vfs_of(options)) {}

void Store::start_threads() {
  const OpenRows open = [this] { return UploadRows(connect(options)); };
  auto reader = std::make_unique<ReadThread>(environment(), open(), options.commit_timeout);
  checkpoints = std::make_unique<CheckpointThread>(environment(), connect(options), reserve_);
  commits = std::make_unique<CommitThread>(
      environment(), open,
      CommitThread::Options{.commit_timeout = options.commit_timeout,
                            .want_checkpoint = [this] { checkpoints->wake(); },
                            .release_reserve = [this] { return reserve_.release(); }});
  reads = std::move(reader);
  reserve_.set_aside();
}

Task<std::optional<UploadState>> Store::find_state(UploadId id) {
  auto work = [&id](UploadRows& rows) { return rows.find_state(id); };
  co_return co_await reads->run(work);
}

Task<std::optional<UploadState>> Store::settle(UploadId id, Next next) {
  auto work = [&](UploadRows& rows) {
    if (options.durability != Durability::none) rows.touch();
    return rows.find_state(id);
  };
  if (next == Next::remove) co_return co_await commits->run_delete(work);
  co_return co_await commits->run(work);
}

void Store::stop_threads() {
  std::unique_lock lock(threads_mutex_);
  auto last_commits = std::move(commits);
  const auto last_reads = std::move(reads);
  lock.unlock();         // To end them takes a while.
  last_commits.reset();  // Before the checkpoints, which it asks for.
  checkpoints.reset();
}

void Store::add_to(StorageStats& stats) const {
  stats.operations_running = running_;
  const std::lock_guard lock(threads_mutex_);
  if (!commits) return;
  commits->add_to(stats);
  stats.reads_queued = reads->queued();
}

Store::Running::Running(Store& store) : store_(store) {
  if (store_.closed) throw StorageError(Errc::shutting_down, "begin", "", "");
  ++store_.running_;
}

Store::Running::~Running() {
  if (--store_.running_ == 0) store_.idle_.wake_all();
}

Task<void> Store::drain() {
  while (running_ != 0) co_await idle_.wait_to_end();
}

}  // namespace tidemark::detail
