#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <unordered_map>

#include <tidemark/engine/async_mutex.hpp>
#include <tidemark/storage/detail/store.hpp>
#include <tidemark/storage/detail/write_session.hpp>

namespace tidemark::detail {

/// Durability::ordered: appends that are answered once written. Each upload's session, with its
/// lock, stays open as its tail until it is settled: made stable and committed, within
/// k_settle_bytes or k_settle_after, or when another operation needs the upload.
///
/// Thread safety: one executor. Lifetime: settle_all before the end.
class OrderedTails {
 public:
  static constexpr std::uint64_t k_settle_bytes = std::uint64_t{8} << 20;
  static constexpr std::chrono::seconds k_settle_after{1};
  /// Each keeps a descriptor; beyond, a tail is settled at once.
  static constexpr std::size_t k_max_tails = 256;

  explicit OrderedTails(Store& store) : store_(store) {}
  Executor& executor() const { return store_.executor(); }

  /// As Storage::append, without a checksum. An append that completes the upload is settled before
  /// the answer, and one of a deferred length: another process may tell a length below its end.
  Task<AppendResult> append(UploadId id, std::uint64_t offset, std::span<const std::byte> bytes);
  /// The offset that was answered, while it may be ahead of the row.
  std::optional<std::uint64_t> offset_of(const UploadId& id) const;

  /// All of these.
  std::unordered_map<UploadId, std::uint64_t> offsets() const;

  bool empty() const { return tails_.empty(); }
  Task<void> settle(UploadId id);
  Task<void> settle_all();

 private:
  struct Tail {
    explicit Tail(const UploadId& which) : id(which) {}
    const UploadId id;
    AsyncMutex mutex;  // One append at a time, or the settling.
    std::shared_ptr<WriteSession> session;
    bool over = false;
    std::stop_source early;  // Ends the pause before the settling.
  };
  using TailPtr = std::shared_ptr<Tail>;

  TailPtr tail_of(const UploadId& id);
  /// Throws `lock_timeout`.
  Task<AsyncMutex::Guard> lock(Tail& tail, TimePoint deadline);
  Task<std::optional<AppendResult>> append_to(TailPtr tail, TimePoint deadline,
                                              std::uint64_t offset,
                                              std::span<const std::byte> bytes);
  Task<void> open(Tail& tail, std::uint64_t offset);
  Task<AppendResult> end(Tail& tail);
  static Task<void> settle_tail(OrderedTails& tails, TailPtr tail);
  static Task<void> pause_and_settle(OrderedTails& tails, TailPtr tail, Task<void> settling);
  void forget(Tail& tail);

  Store& store_;
  std::unordered_map<UploadId, TailPtr> tails_;
};

}  // namespace tidemark::detail
