#pragma once

// The offsets of the raw loop: one thread that owns one SQLite connection and commits everything
// that waits for it in one transaction. It ends the process when anything fails.

#include <condition_variable>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include <sqlite3.h>

namespace tidemark::bench {

class RawCommitter {
 public:
  /// Raises the offset of upload number `upload` from `expected` to `next`.
  struct Request {
    unsigned upload;
    std::uint64_t expected;
    std::uint64_t next;
  };

  /// Makes a database in `folder` with a row for each of `uploads` uploads of `length` bytes. An
  /// upload that reaches its length begins again at 0. `durable` commits are on stable storage when
  /// they are done, the others survive the process only. With `sync_files` the folder's whole file
  /// system is synced before each transaction.
  RawCommitter(const std::filesystem::path& folder, unsigned uploads, std::uint64_t length,
               bool durable, bool sync_files);
  ~RawCommitter();
  RawCommitter(const RawCommitter&) = delete;
  RawCommitter& operator=(const RawCommitter&) = delete;

  /// Queues `requests` and empties it. From one thread, as is `take_done`.
  void submit(std::vector<Request>& requests);

  /// Replaces the content of `done` with what was committed since the last call.
  void take_done(std::vector<Request>& done);

  /// An eventfd that is written after every transaction.
  int wake_descriptor() const { return wake_descriptor_; }

 private:
  using Statement = std::unique_ptr<sqlite3_stmt, decltype(&sqlite3_finalize)>;

  void execute(const char* sql);
  Statement prepare(const char* sql);
  void create_rows(unsigned uploads);
  void run(const std::stop_token& stop);
  void commit(const std::vector<Request>& group);
  void step(sqlite3_stmt* statement);

  std::unique_ptr<sqlite3, decltype(&sqlite3_close)> database_{nullptr, &sqlite3_close};
  Statement update_{nullptr, &sqlite3_finalize};
  std::vector<std::string> ids_;
  const std::uint64_t length_;
  const int folder_descriptor_;
  const int wake_descriptor_;
  const bool sync_files_;

  std::mutex mutex_;
  std::condition_variable_any queued_;
  std::vector<Request> queue_;
  std::vector<Request> done_;
  std::jthread thread_;
};

}  // namespace tidemark::bench
