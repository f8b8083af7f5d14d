#include <exception>
#include <system_error>
#include <utility>
#include <vector>

#include <tidemark/engine/sleep_for.hpp>
#include <tidemark/engine/stop.hpp>
#include <tidemark/storage/detail/file_session.hpp>
#include <tidemark/storage/detail/ordered_tails.hpp>

namespace tidemark::detail {
namespace {

Task<void> sleep(std::chrono::nanoseconds duration) {
  co_await sleep_for(duration);
}

}  // namespace

Task<AppendResult> OrderedTails::append(UploadId id, std::uint64_t offset,
                                        std::span<const std::byte> bytes) {
  const TimePoint deadline = store_.lock_deadline();
  while (true) {
    const std::optional<AppendResult> result =
        co_await append_to(tail_of(id), deadline, offset, bytes);
    if (result) co_return *result;
  }
}

OrderedTails::TailPtr OrderedTails::tail_of(const UploadId& id) {
  const auto at = tails_.find(id);
  if (at != tails_.end()) return at->second;
  auto tail = std::make_shared<Tail>(id);
  const auto added = tails_.emplace(id, tail).first;
  try {  // All that the settling needs is there before the tail is used.
    store_.core.endings.spawn(pause_and_settle(*this, tail, settle_tail(*this, tail)));
  } catch (...) {
    tails_.erase(added);
    throw;
  }
  return tail;
}

Task<AsyncMutex::Guard> OrderedTails::lock(Tail& tail, TimePoint deadline) {
  AsyncMutex::Guard guard = tail.mutex.try_lock();
  if (guard.owns_lock()) co_return guard;
  try {
    co_return co_await with_timeout(tail.mutex.lock(), deadline - store_.environment().now());
  } catch (const std::system_error& error) {
    if (error.code() != std::errc::timed_out) throw;
    throw StorageError(Errc::lock_timeout, "append", tail.id.view(),
                       "others have it or wait for it");
  }
}

/// Nothing when the tail was settled before it could take the bytes.
Task<std::optional<AppendResult>> OrderedTails::append_to(TailPtr tail, TimePoint deadline,
                                                          std::uint64_t offset,
                                                          std::span<const std::byte> bytes) {
  const AsyncMutex::Guard guard = co_await lock(*tail, deadline);
  if (tail->over) co_return std::nullopt;
  const bool first = tail->session == nullptr;
  if (first) co_await open(*tail, offset);
  WriteSession& session = *tail->session;
  if (session.has_ended()) {  // At another offset from the start, or taken over since.
    const AppendResult result = co_await end(*tail);
    if (first) co_return result;
    co_return std::nullopt;
  }
  if (session.offset() != offset) {
    store_.core.count([](StorageStats& stats) { ++stats.conflicts; });
    co_return AppendResult{AppendStatus::offset_conflict, session.offset(), false};
  }
  std::exception_ptr error;
  try {
    co_await session.write(bytes);
  } catch (...) {
    error = std::current_exception();
  }
  if (error && session.has_ended()) forget(*tail);
  if (error) std::rethrow_exception(error);
  if (session.has_ended() || session.is_complete() || !session.length_is_known()) {
    co_return co_await end(*tail);
  }
  session.note_answered();
  store_.core.turns.note_move(tail->id);
  const bool many = tails_.size() > k_max_tails;
  if (many || session.uncommitted_bytes() >= k_settle_bytes) tail->early.request_stop();
  co_return AppendResult{AppendStatus::committed, session.offset(), false};
}

Task<void> OrderedTails::open(Tail& tail, std::uint64_t offset) {
  const WriterOptions options{.offset = offset, .durability = Durability::full};
  auto session = std::make_shared<FileSession>(store_, tail.id, options, "append");
  try {
    co_await session->open();
  } catch (...) {
    forget(tail);
    throw;
  }
  tail.session = std::move(session);
}

Task<AppendResult> OrderedTails::end(Tail& tail) {
  try {
    const AppendResult result = co_await tail.session->close();
    forget(tail);  // Not before: until then the row does not tell what was answered.
    co_return result;
  } catch (...) {
    forget(tail);
    throw;
  }
}

void OrderedTails::forget(Tail& tail) {
  tail.over = true;
  tail.early.request_stop();
  tails_.erase(tail.id);
}

Task<void> OrderedTails::pause_and_settle(OrderedTails& tails, TailPtr tail, Task<void> settling) {
  try {
    co_await with_stop(sleep(k_settle_after), tail->early.get_token());
  } catch (const std::exception&) {  // Earlier, then.
  }
  try {
    co_await without_stop(std::move(settling));
  } catch (const std::exception& error) {  // Who needs the upload next tries again.
    tails.store_.environment().log(LogLevel::error, error.what());
  }
}

Task<void> OrderedTails::settle_tail(OrderedTails& tails, TailPtr tail) {
  const AsyncMutex::Guard guard = co_await tail->mutex.lock();
  if (tail->over) co_return;
  if (!tail->session) co_return tails.forget(*tail);
  co_await tails.end(*tail);
}

std::optional<std::uint64_t> OrderedTails::offset_of(const UploadId& id) const {
  const auto at = tails_.find(id);
  const WriteSession* const session = at == tails_.end() ? nullptr : at->second->session.get();
  if (session == nullptr || session->has_ended()) return std::nullopt;
  return session->answered_offset();
}

std::unordered_map<UploadId, std::uint64_t> OrderedTails::offsets() const {
  std::unordered_map<UploadId, std::uint64_t> all;
  for (const auto& [id, tail] : tails_) {
    if (const auto offset = offset_of(id)) all.emplace(id, *offset);
  }
  return all;
}

Task<void> OrderedTails::settle(UploadId id) {
  const auto at = tails_.find(id);
  if (at == tails_.end()) co_return;
  const TailPtr tail = at->second;
  if (!tail->session) co_return;  // Its first append still waits, and has answered nothing.
  try {
    co_await without_stop(settle_tail(*this, tail));
  } catch (const std::exception& error) {  // What is asked for next meets what is wrong.
    store_.environment().log(LogLevel::error, error.what());
  }
}

Task<void> OrderedTails::settle_all() {
  std::vector<UploadId> ids;
  for (const auto& [id, tail] : tails_) ids.push_back(id);
  for (const UploadId& id : ids) co_await settle(id);
}

}  // namespace tidemark::detail
