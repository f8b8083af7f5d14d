#include <cerrno>
#include <utility>

#include <tidemark/engine/assert.hpp>
#include <tidemark/engine/stop.hpp>
#include <tidemark/engine/when_all.hpp>
#include <tidemark/storage/detail/sync_group.hpp>

namespace tidemark::detail {

Task<void> SyncGroup::sync(File& file, std::uint64_t seen) {
  Member self{file, seen};
  waiting_.push_back(&self);
  if (running_) co_await self.turn.wait_to_end();
  if (!self.done) {
    running_ = true;
    std::swap(round_, waiting_);
    const std::uint64_t failures = failures_;
    std::exception_ptr error;
    try {
      co_await sync_round();
    } catch (...) {  // There is no memory to begin. Those who wait must be told.
      error = std::current_exception();
    }
    end_round(failures, error);
  }
  TIDEMARK_ASSERT(self.done, "a round covers everyone who waited for it");
  if (self.error) std::rethrow_exception(self.error);
}

Task<void> SyncGroup::sync_round() {
  if (round_.size() >= k_many) {
    co_await sync_all();
  } else if (round_.size() == 1) {
    co_await sync_one(executor(), *round_.front());
  } else {
    std::vector<Task<void>> tasks;
    for (Member* member : round_) tasks.push_back(sync_one(executor(), *member));
    co_await without_stop(when_all(std::move(tasks)));
  }
}

void SyncGroup::end_round(std::uint64_t failures, const std::exception_ptr& error) {
  for (Member* member : round_) {
    if (!member->error) member->error = error;
    const bool lost_before = member->seen != failures && !member->error;
    if (lost_before) {
      member->error = std::make_exception_ptr(
          std::system_error(EIO, std::generic_category(), "an earlier syncfs failed"));
    }
    member->done = true;
    member->turn.wake_all();  // Continues in a later turn, so its memory is there until then.
  }
  round_.clear();
  running_ = false;
  if (!waiting_.empty()) {
    running_ = true;  // Nobody passes the one that leads now.
    waiting_.front()->turn.wake_one();
  }
}

Task<void> SyncGroup::sync_all() {
  std::exception_ptr error;
  try {
    co_await folder_.sync_filesystem();
    // XFS tells the disk to write its cache down only when its log has news, and it has none of
    // bytes that were written over others; after this it was told.
    co_await round_.front()->file.sync_data();
  } catch (...) {
    error = std::current_exception();
    ++failures_;
  }
  for (Member* member : round_) member->error = error;
}

Task<void> SyncGroup::sync_one(Executor&, Member& member) {
  try {
    co_await member.file.sync_data();
  } catch (...) {
    member.error = std::current_exception();
  }
}

Task<void> DirectorySync::sync() {
  // A sync that has begun may have missed the name; the one after it does not.
  const std::uint64_t needed = begun_ + 1;
  while (begun_ != ended_ && ended_ < needed) {
    co_await ended_one_.wait_to_end();
  }
  if (ended_ < needed) co_await begin();
  if (last_failed_ >= needed) std::rethrow_exception(error_);
}

Task<void> DirectorySync::begin() {
  const std::uint64_t number = ++begun_;
  try {
    co_await folder_.sync();
  } catch (...) {
    error_ = std::current_exception();
    last_failed_ = number;
  }
  ended_ = number;
  ended_one_.wake_all();
}

}  // namespace tidemark::detail
