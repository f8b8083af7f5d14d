#pragma once

#include <atomic>
#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <stop_token>
#include <string>
#include <utility>

#include <tidemark/engine/driver.hpp>
#include <tidemark/engine/environment.hpp>
#include <tidemark/engine/frame_pool.hpp>
#include <tidemark/engine/root_count.hpp>
#include <tidemark/engine/work_item.hpp>

namespace tidemark {

/// A work item that runs at a time. At any moment it is armed or has run. See Executor::add_timer.
struct Timer : WorkItem {
  using Queue = std::multimap<TimePoint, Timer*, std::less<>,
                              detail::FrameAllocator<std::pair<const TimePoint, Timer*>>>;
  bool armed = false;
  Queue::iterator place;  // Meaningful while armed.
};

/// One thread, one driver, one FIFO queue of what is ready. Everything a task does runs here, one
/// item at a time, so what only one executor's tasks touch needs no lock.
///
/// Each turn runs what is ready, then hands all new operations to the kernel and waits for
/// completions in one system call. An item never runs inside another: continuing an awaiter goes
/// through `run_next` and the loop, because symmetric transfer is a true tail call only in some
/// builds, and a chain of a million finished awaits must not grow the stack in any.
///
/// Thread safety: as each member says; the rest is for the executor's own thread. Lifetime: owned
/// by an Engine, which outlives every task on it.
class Executor {
 public:
  Executor(Environment& environment, const DriverOptions& options, const std::string& name,
           detail::RootCount& roots, std::stop_token engine_stop);
  ~Executor();
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  /// The executor whose thread this is, or nullptr.
  static Executor* current();

  /// Runs `item` in a later turn, after everything posted before. Any thread.
  void post(WorkItem& item);
  /// The same from the executor's own thread, without synchronisation.
  void post_here(WorkItem& item);
  /// Runs `item` as soon as the present one returns: how a task starts or continues another. At
  /// most once in each item.
  void run_next(WorkItem& item);

  /// Runs `timer` once `deadline` is past. It must stay alive and be added once at a time.
  void add_timer(Timer& timer, TimePoint deadline);
  /// Takes it out again; nothing happens when it already ran.
  void remove_timer(Timer& timer);

  // Any thread, as are `engine_stop` and `root_started`.
  Driver& driver() { return *driver_; }
  Environment& environment() { return environment_; }
  /// So that a free coroutine whose first parameter is an Executor& binds to it (see Task).
  Executor& executor() { return *this; }

  /// Requested when the engine is told to end what still runs: what a task without another token
  /// listens to.
  const std::stop_token& engine_stop() const { return engine_stop_; }

  /// Roots are tasks that no other task awaits. The engine drains them before it ends.
  void root_started() { roots_.started(); }
  /// On the executor's own thread, which the engine joins before anything of it goes away.
  void root_finished() { roots_.finished(); }

  /// Makes `turn` return without waiting from now on. Any thread.
  void exit();

  /// One turn of the loop. Called by the executor's thread, or by a simulator in its place.
  void turn();

 private:
  void run(WorkItem& item);
  void take_posted();
  void fire_timers();
  void wait_for_events();

  Environment& environment_;
  detail::RootCount& roots_;
  const std::stop_token engine_stop_;
  std::unique_ptr<Driver> driver_;
  WorkQueue ready_;
  WorkItem* next_ = nullptr;
  Timer::Queue timers_;
  std::atomic<WorkItem*> posted_{nullptr};  // From other threads, newest first.
  std::atomic<bool> asleep_{false};
  std::atomic<bool> exiting_{false};
  std::atomic<std::size_t> posting_{0};  // Threads inside `post`.
  std::unique_ptr<TurnThread> thread_;   // Last: its turns use the members above.
};

}  // namespace tidemark
