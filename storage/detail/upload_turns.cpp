#include <system_error>
#include <utility>

#include <tidemark/engine/assert.hpp>
#include <tidemark/engine/stop.hpp>
#include <tidemark/storage/detail/upload_turns.hpp>
#include <tidemark/storage/storage_error.hpp>

namespace tidemark::detail {

UploadTurns::~UploadTurns() {
  TIDEMARK_ASSERT(shared_.empty(), "a storage outlives its operations and writers");
}

bool UploadTurns::is_taken(const UploadId& id) const {
  const auto at = shared_.find(id);
  return at != shared_.end() && at->second.turns > 0;
}

UploadTurns::Standing UploadTurns::standing(const UploadId& id) const {
  const auto at = shared_.find(id);
  const Turn* const holder = at == shared_.end() ? nullptr : at->second.holder;
  return holder == nullptr || holder->standing_ == nullptr ? Standing() : *holder->standing_;
}

void UploadTurns::note_move(const UploadId& id) {
  const auto at = shared_.find(id);
  if (at == shared_.end()) return;
  ++at->second.moves;
  at->second.offset_moved.wake_all();
}

UploadTurns::Use::Use(UploadTurns& turns, const UploadId& id)
    : turns_(turns), id_(id), shared_(turns.shared_[id]) {
  TIDEMARK_ASSERT(Executor::current() == &turns.executor_, "turns are used on one executor");
  ++shared_.uses;
}

UploadTurns::Use::~Use() {
  TIDEMARK_ASSERT(Executor::current() == &turns_.executor_, "turns are used on one executor");
  if (--shared_.uses == 0) turns_.shared_.erase(id_);
}

AsyncMutex& UploadTurns::Use::row_mutex() {
  return shared_.row;
}

WaitList& UploadTurns::Use::offset_moved() {
  return shared_.offset_moved;
}

std::uint64_t UploadTurns::Use::moves() const {
  return shared_.moves;
}

UploadTurns::Turn::Turn(UploadTurns& turns, const UploadId& id, std::function<void()> on_taken_over,
                        const Standing* standing)
    : turns_(turns), id_(id), on_taken_over_(std::move(on_taken_over)), standing_(standing) {}

Task<void> UploadTurns::Turn::wait_at(Place place) {
  Shared& shared = enter();
  auto& waiting = shared.waiting;
  waiting.insert(place == Place::first ? waiting.begin() : waiting.end(), *this);
  try {
    Task<AsyncMutex::Guard> lock =
        place == Place::first ? shared.turn.lock_first() : shared.turn.lock();
    guard_ = co_await std::move(lock);
  } catch (...) {
    waiting.erase(waiting.iterator_to(*this));
    leave();
    throw;
  }
  waiting.erase(waiting.iterator_to(*this));
  TIDEMARK_ASSERT(shared.holder == nullptr, "one at a time has the turn");
  shared.holder = this;
}

Task<void> UploadTurns::Turn::wait() {
  return wait_at(Place::last);
}

void UploadTurns::Turn::ask_to_end() {
  is_taken_over_ = true;
  if (has_turn() && on_taken_over_) on_taken_over_();
}

Task<void> UploadTurns::Turn::take_over(std::uint64_t up_to) {
  {
    const Use use(turns_, id_);
    Shared& shared = use.shared_;
    const auto ask = [up_to](Turn& turn) {
      if (turn.standing_ == nullptr || turn.standing_->offset <= up_to) turn.ask_to_end();
    };
    for (Turn& each : shared.waiting) ask(each);
    if (shared.holder != nullptr) ask(*shared.holder);
  }
  co_await wait();
}

Task<void> UploadTurns::Turn::go_first() {
  {
    const Use use(turns_, id_);
    Shared& shared = use.shared_;
    if (shared.holder != nullptr) {
      shared.holder->ask_to_end();
    } else {  // The next one has it, and learns so when it continues.
      for (Turn& each : shared.waiting) each.ask_to_end();
    }
  }
  co_await wait_at(Place::first);
}

bool UploadTurns::Turn::try_take() {
  if (turns_.is_taken(id_)) return false;
  Shared& shared = enter();
  guard_ = shared.turn.try_lock();
  TIDEMARK_ASSERT(guard_.owns_lock(), "a mutex that nobody waits for is free");
  shared.holder = this;
  return true;
}

Task<void> UploadTurns::Turn::take(Task<void> wait, std::chrono::nanoseconds timeout,
                                   const char* operation) {
  if (try_take()) co_return;
  try {
    co_await with_timeout(std::move(wait), timeout);
  } catch (const std::system_error& error) {
    if (error.code() != std::errc::timed_out) throw;
    throw StorageError(Errc::lock_timeout, operation, id_.view(),
                       "a writer of this process has it");
  }
}

void UploadTurns::Turn::end() {
  if (!has_turn()) return;
  TIDEMARK_ASSERT(use_->shared_.holder == this, "one at a time has the turn");
  use_->shared_.holder = nullptr;
  guard_.unlock();
  leave();
}

UploadTurns::Shared& UploadTurns::Turn::enter() {
  TIDEMARK_ASSERT(!use_, "a turn is waited for once");
  Shared& shared = use_.emplace(turns_, id_).shared_;
  ++shared.turns;
  return shared;
}

void UploadTurns::Turn::leave() {
  --use_->shared_.turns;
  use_.reset();
}

}  // namespace tidemark::detail
