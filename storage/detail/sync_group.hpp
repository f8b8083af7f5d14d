#pragma once

#include <cstdint>
#include <exception>
#include <vector>

#include <tidemark/engine/wait_list.hpp>
#include <tidemark/io/directory.hpp>
#include <tidemark/io/file.hpp>

namespace tidemark::detail {

/// Makes the files of one folder stable, many at once. Who asks while a round runs joins the next
/// one, which the first of them leads (the leader-batch of LevelDB's writers). A round of few files
/// syncs each; one of many syncs the file system once, which is cheaper from about k_many on
/// (measured: 4 KiB x 64 uploads, 36 k/s against 15 k/s).
///
/// Thread safety: one executor. A stop is not heeded: a sync is never left half done.
class SyncGroup {
 public:
  static constexpr std::size_t k_many = 8;

  explicit SyncGroup(Directory& folder) : folder_(folder) {}
  Executor& executor() const { return folder_.executor(); }

  /// How many syncs of the file system have failed. The kernel tells of a lost page once, to
  /// whoever asks first, so a file written before such a failure must not trust a later success.
  std::uint64_t failures() const { return failures_; }

  /// What was written to `file` while failures() was `seen` is stable when it returns. Throws what
  /// the sync answered.
  Task<void> sync(File& file, std::uint64_t seen);

 private:
  struct Member {
    File& file;
    const std::uint64_t seen;
    std::exception_ptr error = {};
    bool done = false;
    WaitList turn = {};  // To be done, or to lead the next round.
  };

  Task<void> sync_round();
  /// `failures`, of before the round; `error`, of those that have none of their own.
  void end_round(std::uint64_t failures, const std::exception_ptr& error);
  Task<void> sync_all();
  static Task<void> sync_one(Executor& executor, Member& member);

  Directory& folder_;
  std::uint64_t failures_ = 0;
  bool running_ = false;
  std::vector<Member*> waiting_;
  std::vector<Member*> round_;
};

/// The same for the names in one folder.
class DirectorySync {
 public:
  explicit DirectorySync(Directory& folder) : folder_(folder) {}
  Executor& executor() const { return folder_.executor(); }

  /// Names added before are stable when it returns.
  Task<void> sync();

 private:
  Task<void> begin();

  Directory& folder_;
  std::uint64_t begun_ = 0;  // Syncs, counted up.
  std::uint64_t ended_ = 0;
  std::uint64_t last_failed_ = 0;
  std::exception_ptr error_;
  WaitList ended_one_;
};

}  // namespace tidemark::detail
