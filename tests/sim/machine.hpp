#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <tidemark/engine/driver.hpp>
#include <tidemark/engine/environment.hpp>

#include "disk.hpp"
#include "nth_fault.hpp"
#include "process.hpp"
#include "random.hpp"

namespace tidemark::sim {

/// An open file description: what a descriptor stands for, and what owns a flock.
struct OpenFile {
  std::string path;
  FilePtr file;
  const Process* owner = nullptr;
  bool is_direct = false;
};

/// How often what goes wrong: once in so many operations; 0 is never.
struct FaultRates {
  std::uint64_t short_transfer = 0;
  std::uint64_t interrupted = 0;  // EINTR; EAGAIN, of reads, writes and locks.
  std::uint64_t failed = 0;       // EIO.
  std::uint64_t full = 0;         // ENOSPC.
  std::uint64_t failed_sync = 0;  // EIO or ENOSPC, and the dirty pages are dropped.

  bool any_error() const { return failed != 0 || full != 0 || failed_sync != 0; }
};

/// What processes share beside files: SQLite's locks and shared memory.
class SharedState {
 public:
  virtual ~SharedState() = default;
  virtual void release_all_of(const Process& process) = 0;
  /// Between the two nothing may change: a dead process runs.
  virtual void freeze() = 0;
  virtual void thaw() = 0;
};

/// A computer: clock, threads, disk and descriptors, all in one real thread, all by one seed. The
/// production code runs on it through the seams of Environment, Driver and SQLite's VFS.
///
/// After power_cut() the disk answers nothing but EIO, so that what still runs can be drained,
/// while the next machine goes on with what is left of the disk.
class Machine {
 public:
  /// What goes on from one machine to the next.
  struct Clock {
    TimePoint now{std::chrono::seconds(1)};
    SystemTime system_now{std::chrono::seconds(1'700'000'000)};
    SystemTime latest_system_now = system_now;
  };

  Machine(Disk& disk, Random& random, const Clock& clock);
  ~Machine();

  TimePoint now() const { return now_; }
  SystemTime system_now() const;
  /// Somebody sets the calendar.
  void shift_calendar(std::chrono::seconds by);
  std::uint64_t calendar_shifts() const { return calendar_shifts_; }
  /// The latest that anybody was told.
  SystemTime latest_system_now() const { return std::max(latest_system_, system_now()); }
  Clock clock() const { return {now_, system_now(), latest_system_now()}; }
  void log(std::string_view line) const;
  bool is_verbose = false;
  bool is_quick = false;  // No operation takes long.

  std::unique_ptr<TurnThread> start_thread(Process& process, Turn turn);
  /// Whose turn it is.
  Process& running_process() const;
  /// Does `work` in the name of `process`.
  void run_as(Process& process, const std::function<void()>& work);

  /// Runs turns and events until `done`. False when nothing can run any more, or `deadline` of the
  /// virtual clock has passed: somebody waits for ever.
  bool run_until(const std::function<bool()>& done, TimePoint deadline);

  /// `run` happens after `delay`; gives a handle for `forget`.
  using EventHandle = std::pair<TimePoint, std::uint64_t>;
  EventHandle after(std::chrono::nanoseconds delay, std::function<void()> run);
  bool forget(const EventHandle& event) { return events_.erase(event) != 0; }

  /// A step that the disk sees, of `process`. False when it is dead, perhaps just now: with one of
  /// the steps the power goes, or a process dies.
  bool step(const Process& process, bool syncs_database = false);
  /// Before each step, while there is power.
  std::function<void()> on_step;
  void cut_power_at_step(std::uint64_t step) { cut_at_step_ = step; }
  /// `in_commit`: it dies in its first sync of the database from then on, where most of its time
  /// goes.
  void kill_at_step(Process& victim, std::uint64_t step, bool in_commit) {
    kills_.push_back({&victim, step, in_commit});
  }
  void forget_kills_of(const Process& victim);
  void cut_power();
  /// What the kernel has of its operations happens, or does not; then its locks are free.
  void kill(Process& process);
  bool is_dead() const { return is_dead_; }
  std::uint64_t steps() const { return steps_; }
  std::uint64_t operations() const { return operations_; }
  std::uint64_t kills() const { return kill_count_; }

  /// What the system call gives, a result or -errno.
  std::int64_t perform(Operation& operation, const Process& process);
  void close_descriptor(int fd) noexcept;
  void set_direct(int fd, bool direct);
  std::size_t open_descriptors() const { return descriptors_.size(); }
  std::size_t held_locks() const;
  std::shared_ptr<OpenFile> share(int fd) const;
  /// Sees every write of ours just before it happens, and whether its file is locked for it.
  std::function<void(const OpenFile&, std::uint64_t offset, bool is_locked)> on_write;
  /// A sync has failed: dirty pages of this file are lost; null: of all files.
  std::function<void(const OpenFile*)> on_loss;

  Disk& disk() { return disk_; }
  const Disk& disk() const { return disk_; }
  Random& chance() { return random_; }
  void set_faults(const FaultRates& rates);
  const FaultRates& faults() const { return faults_; }
  /// Errors were possible since the start, and may have left their marks.
  bool had_errors() const { return had_errors_; }
  /// Whether what happens at this rate happens now.
  bool fails(std::uint64_t rate) { return rate != 0 && random_.once_in(rate); }
  NthFault call_fault;  // EIO, of every call that can fail; a sync also drops the dirty pages.
  NthFault full_fault;  // ENOSPC, of those that take space.
  NthFault short_fault;
  SharedState* shared_state = nullptr;

  /// An executor's driver has nothing to give until `deadline`.
  void driver_waits(std::optional<TimePoint> deadline);
  /// Something has changed for the thread that uses `driver`.
  void wake_driver(const Driver* driver);
  void bind_driver(const Driver* driver);

 private:
  class Thread;
  struct Kill {
    Process* victim;
    std::uint64_t step;
    bool in_commit;
  };

  void lose_dirty_pages(const Operation& sync);
  std::int64_t read(const Operation& operation);
  std::int64_t open_file(const Operation& operation, const Process& process);
  std::int64_t write(const Operation& operation, const Process& process);
  std::int64_t stat(const Operation& operation);
  std::int64_t lock(const Operation& operation);
  std::int64_t change_names(const Operation& operation);
  std::int64_t copy_range(const Operation& operation);
  std::int64_t sync(const Operation& operation);
  std::optional<std::int64_t> fault(const Operation& operation, const Process& process);
  std::string path_of(int folder, const char* path) const;
  OpenFile& opened(int fd) const;
  void release_locks(const OpenFile& file);

  void run_turn(Thread& thread);
  void wake_executors();
  bool advance();

  Disk& disk_;
  Random& random_;
  TimePoint now_;
  const TimePoint start_;
  SystemTime system_start_;
  SystemTime latest_system_;
  std::uint64_t calendar_shifts_ = 0;

  std::vector<Thread*> threads_;
  Thread* running_ = nullptr;
  Process* running_process_ = nullptr;
  std::map<EventHandle, std::function<void()>> events_;
  std::uint64_t event_count_ = 0;

  std::map<int, std::shared_ptr<OpenFile>> descriptors_;
  std::map<const File*, std::set<const OpenFile*>> shared_locks_;
  std::map<const File*, const OpenFile*> locks_;

  FaultRates faults_;
  bool had_errors_ = false;
  std::uint64_t steps_ = 0;
  std::uint64_t operations_ = 0;
  std::uint64_t cut_at_step_ = UINT64_MAX;
  std::vector<Kill> kills_;
  std::uint64_t kill_count_ = 0;
  bool is_dead_ = false;
};

}  // namespace tidemark::sim
