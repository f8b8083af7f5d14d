#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <unordered_map>

#include <boost/intrusive/list.hpp>

#include <tidemark/engine/async_mutex.hpp>
#include <tidemark/engine/executor.hpp>
#include <tidemark/engine/task.hpp>
#include <tidemark/engine/wait_list.hpp>
#include <tidemark/storage/upload_id.hpp>

namespace tidemark::detail {

/// Whose turn it is to write each upload of one storage object: first come, first served, but a
/// newcomer may ask the present one and all who wait before it to end.
///
/// What is kept for an upload lives while somebody uses it; its memory is used again.
/// Thread safety: used by the tasks of one executor. Lifetime: outlives its turns and uses.
class UploadTurns {
 private:
  struct Shared;

 public:
  explicit UploadTurns(Executor& executor) : executor_(executor) {}
  ~UploadTurns();
  UploadTurns(const UploadTurns&) = delete;
  UploadTurns& operator=(const UploadTurns&) = delete;

  Executor& executor() const { return executor_; }
  /// Whether anybody has the upload's turn or waits for it.
  bool is_taken(const UploadId& id) const;
  /// Where an upload stands at least, as a turn expects it or, once it has looked, knows it.
  /// Offsets only grow: whoever expects less than another cannot write if the other can.
  struct Standing {
    std::uint64_t offset = 0;
    bool is_known = false;
  };
  /// What tells who has the turn.
  Standing standing(const UploadId& id) const;
  /// The committed offset has moved: lets everyone continue who waits in Use::offset_moved().
  void note_move(const UploadId& id);

  /// What the tasks of one upload share. Keeps it alive.
  class Use {
   public:
    Use(UploadTurns& turns, const UploadId& id);
    ~Use();
    Use(const Use&) = delete;
    Use& operator=(const Use&) = delete;

    /// For short steps on the row, such as read-then-write; never held while waiting for a turn.
    AsyncMutex& row_mutex();
    /// Those who wait for the committed offset to move.
    WaitList& offset_moved();
    /// How often it has: whoever looks, then waits, asks before and after the look.
    std::uint64_t moves() const;

   private:
    friend class UploadTurns;
    UploadTurns& turns_;
    const UploadId id_;
    Shared& shared_;
  };

  /// One writer's place: it waits, has the turn, and ends, once.
  ///
  /// Lifetime: pinned while it waits or has the turn. When destroyed, its turn ends.
  class Turn : public boost::intrusive::list_base_hook<> {
   public:
    /// `on_taken_over` is called, on the executor, when a newer turn asks this one to end while it
    /// has the turn. It must not end the turn itself; a task that it starts may. `standing` is the
    /// owner's, and may change; null: nothing is expected.
    Turn(UploadTurns& turns, const UploadId& id, std::function<void()> on_taken_over = {},
         const Standing* standing = nullptr);
    ~Turn() { end(); }
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;

    Executor& executor() const { return turns_.executor(); }

    /// Waits for the turn. Throws std::errc::operation_canceled when asked to stop before.
    Task<void> wait();
    /// The same, after asking those who came before to end, but for those who expect an offset
    /// above `up_to`.
    Task<void> take_over(std::uint64_t up_to = UINT64_MAX);
    /// The same, after asking the present one to end, and before all who wait.
    Task<void> go_first();
    /// Takes the turn when nobody has it or waits for it; else false.
    bool try_take();
    /// try_take, or else `wait`, one of the tasks above, for at most `timeout`: then it throws a
    /// StorageError (`lock_timeout`) of `operation`.
    Task<void> take(Task<void> wait, std::chrono::nanoseconds timeout, const char* operation);
    /// Gives the turn to the next one. Nothing happens without it.
    void end();

    bool has_turn() const { return guard_.owns_lock(); }
    /// Whether a newer turn asked this one to end. Whoever waited learns it when its turn comes.
    bool is_taken_over() const { return is_taken_over_; }

   private:
    friend class UploadTurns;
    enum class Place { last, first };

    Task<void> wait_at(Place place);
    void ask_to_end();
    Shared& enter();
    void leave();

    UploadTurns& turns_;
    const UploadId id_;
    const std::function<void()> on_taken_over_;
    const Standing* const standing_;
    std::optional<Use> use_;  // From the first wait to the end.
    AsyncMutex::Guard guard_;
    bool is_taken_over_ = false;
  };

 private:
  struct Shared {
    AsyncMutex turn;
    AsyncMutex row;
    WaitList offset_moved;
    std::uint64_t moves = 0;
    Turn* holder = nullptr;
    boost::intrusive::list<Turn> waiting;  // The first may have been given the mutex already.
    std::size_t turns = 0;                 // Waiting or held.
    std::size_t uses = 0;                  // Turns among them.
  };

  Executor& executor_;
  std::unordered_map<UploadId, Shared, std::hash<UploadId>, std::equal_to<>,
                     FrameAllocator<std::pair<const UploadId, Shared>>>
      shared_;
};

}  // namespace tidemark::detail
