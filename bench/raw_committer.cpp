#include "raw_committer.hpp"

#include <cerrno>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <utility>

#include "die.hpp"

namespace tidemark::bench {

RawCommitter::RawCommitter(const std::filesystem::path& folder, unsigned uploads,
                           std::uint64_t length, bool durable, bool sync_files)
    : length_(length),
      folder_descriptor_(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)),
      wake_descriptor_(::eventfd(0, EFD_CLOEXEC)),
      sync_files_(sync_files) {
  if (folder_descriptor_ < 0 || wake_descriptor_ < 0) die("open the folder", errno);
  sqlite3* database = nullptr;
  const int result = sqlite3_open((folder / "uploads.db").c_str(), &database);
  database_.reset(database);
  if (result != SQLITE_OK) die(sqlite3_errmsg(database));
  execute("PRAGMA journal_mode = WAL");
  execute(durable ? "PRAGMA synchronous = FULL" : "PRAGMA synchronous = OFF");
  create_rows(uploads);
  update_ = prepare(
      "UPDATE uploads SET offset = ?1, completed = (upload_length >= 0 AND ?1 >= upload_length)"
      " WHERE upload_id = ?2 AND offset = ?3");
  thread_ = std::jthread([this](const std::stop_token& stop) { run(stop); });
}

RawCommitter::~RawCommitter() {
  thread_.request_stop();
  thread_.join();
  ::close(folder_descriptor_);
  ::close(wake_descriptor_);
}

void RawCommitter::submit(std::vector<Request>& requests) {
  if (requests.empty()) return;
  {
    const std::lock_guard lock(mutex_);
    queue_.insert(queue_.end(), requests.begin(), requests.end());
  }
  requests.clear();
  queued_.notify_one();
}

void RawCommitter::take_done(std::vector<Request>& done) {
  done.clear();
  const std::lock_guard lock(mutex_);
  std::swap(done, done_);
}

void RawCommitter::execute(const char* sql) {
  if (sqlite3_exec(database_.get(), sql, nullptr, nullptr, nullptr) != SQLITE_OK) {
    die(sqlite3_errmsg(database_.get()));
  }
}

RawCommitter::Statement RawCommitter::prepare(const char* sql) {
  sqlite3_stmt* statement = nullptr;
  if (sqlite3_prepare_v2(database_.get(), sql, -1, &statement, nullptr) != SQLITE_OK) {
    die(sqlite3_errmsg(database_.get()));
  }
  return Statement(statement, &sqlite3_finalize);
}

void RawCommitter::create_rows(unsigned uploads) {
  execute(
      "CREATE TABLE uploads (upload_id TEXT PRIMARY KEY, upload_length INTEGER NOT NULL, offset "
      "INTEGER DEFAULT 0, metadata TEXT, created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP, "
      "completed BOOLEAN DEFAULT 0, expires_at TIMESTAMP)");
  execute("BEGIN");
  const Statement insert =
      prepare("INSERT INTO uploads (upload_id, upload_length, metadata) VALUES (?, ?, '{}')");
  for (unsigned upload = 0; upload < uploads; ++upload) {
    const std::string& id = ids_.emplace_back("upload-" + std::to_string(upload));
    sqlite3_bind_text(insert.get(), 1, id.c_str(), -1, SQLITE_STATIC);
    sqlite3_bind_int64(insert.get(), 2, static_cast<sqlite3_int64>(length_));
    step(insert.get());
  }
  execute("COMMIT");
}

void RawCommitter::run(const std::stop_token& stop) {
  std::vector<Request> group;
  for (;;) {
    {
      std::unique_lock lock(mutex_);
      if (!queued_.wait(lock, stop, [this] { return !queue_.empty(); })) return;
      group.clear();
      std::swap(group, queue_);
    }
    commit(group);
    {
      const std::lock_guard lock(mutex_);
      done_.insert(done_.end(), group.begin(), group.end());
    }
    if (::eventfd_write(wake_descriptor_, 1) != 0) die("eventfd_write", errno);
  }
}

void RawCommitter::commit(const std::vector<Request>& group) {
  if (sync_files_ && ::syncfs(folder_descriptor_) != 0) die("syncfs", errno);
  execute("BEGIN IMMEDIATE");
  for (const Request& request : group) {
    const std::uint64_t next = request.next == length_ ? 0 : request.next;
    const std::string& id = ids_[request.upload];
    sqlite3_bind_int64(update_.get(), 1, static_cast<sqlite3_int64>(next));
    sqlite3_bind_text(update_.get(), 2, id.c_str(), static_cast<int>(id.size()), SQLITE_STATIC);
    sqlite3_bind_int64(update_.get(), 3, static_cast<sqlite3_int64>(request.expected));
    step(update_.get());
  }
  execute("COMMIT");
}

/// Every statement here changes exactly one row.
void RawCommitter::step(sqlite3_stmt* statement) {
  if (sqlite3_step(statement) != SQLITE_DONE) die(sqlite3_errmsg(database_.get()));
  if (sqlite3_changes(database_.get()) != 1) die("an offset is not what was expected");
  sqlite3_reset(statement);
}

}  // namespace tidemark::bench
