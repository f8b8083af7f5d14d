#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include <tidemark/engine/driver.hpp>
#include <tidemark/engine/environment.hpp>

#include "disk.hpp"
#include "random.hpp"

namespace tidemark::sim {

/// An open file description: what a descriptor stands for, and what owns a flock.
struct OpenFile {
  std::string path;
  FilePtr file;
  bool is_direct = false;
};

/// How often what goes wrong: once in so many operations; 0 is never.
struct FaultRates {
  std::uint64_t short_transfer = 0;
  std::uint64_t interrupted = 0;  // EINTR, EAGAIN.
  std::uint64_t failed = 0;       // EIO.
  std::uint64_t full = 0;         // ENOSPC.
  std::uint64_t failed_sync = 0;  // EIO or ENOSPC, and the dirty pages are dropped.
};

/// A computer: clock, threads, disk and descriptors, all in one real thread, all by one seed. The
/// production code runs on it through the seams of Environment, Driver and SQLite's VFS. Processes
/// are engines of their own on the same machine.
///
/// After power_cut() the disk answers nothing but EIO, so that what still runs can be drained,
/// while the next machine goes on with what is left of the disk.
class Machine final : public Environment {
 public:
  Machine(Disk& disk, Random& random, TimePoint now, SystemTime system_now);
  ~Machine() override;

  TimePoint now() override { return now_; }
  SystemTime system_now() override;
  std::uint64_t random() override { return random_.bits(); }
  void log(LogLevel level, std::string_view line) override;
  void close_descriptor(int fd) noexcept override;
  void set_direct(int fd, bool direct) override;
  std::unique_ptr<TurnThread> start_thread(const std::string& name, Turn turn) override;
  std::unique_ptr<Driver> make_driver(const DriverOptions& options) override;

  /// Runs turns and events until `done`. False when nothing can run any more, or `deadline` of the
  /// virtual clock has passed: somebody waits for ever.
  bool run_until(const std::function<bool()>& done, TimePoint deadline);

  /// `run` happens after `delay`; gives a handle for `forget`.
  using EventHandle = std::pair<TimePoint, std::uint64_t>;
  EventHandle after(std::chrono::nanoseconds delay, std::function<void()> run);
  bool forget(const EventHandle& event) { return events_.erase(event) != 0; }

  /// Every step that the disk sees: one of them is where the power goes.
  void count_disk_step();
  void cut_power_at_step(std::uint64_t step) { cut_at_step_ = step; }
  void cut_power();
  bool is_dead() const { return is_dead_; }
  std::uint64_t disk_steps() const { return disk_steps_; }
  std::uint64_t operations() const { return operations_; }

  /// What the system call gives, a result or -errno.
  std::int64_t perform(Operation& operation);

  Disk& disk() { return disk_; }
  Random& chance() { return random_; }
  FaultRates faults;
  /// Whether what happens at this rate happens now.
  bool fails(std::uint64_t rate) { return rate != 0 && random_.once_in(rate); }
  bool is_verbose = false;

  /// An executor's driver has nothing to give until `deadline`.
  void driver_waits(std::optional<TimePoint> deadline);
  /// Something has changed for the thread that uses `driver`.
  void wake_driver(const Driver* driver);
  void bind_driver(const Driver* driver);

  std::size_t open_descriptors() const { return descriptors_.size(); }

 private:
  class Thread;

  std::int64_t open_file(const Operation& operation);
  std::int64_t write(const Operation& operation);
  std::int64_t stat(const Operation& operation);
  std::int64_t lock(const Operation& operation);
  std::int64_t change_names(const Operation& operation);
  std::int64_t copy_range(const Operation& operation);
  std::int64_t sync(const Operation& operation);
  std::optional<std::int64_t> fault(const Operation& operation);
  std::string path_of(int folder, const char* path) const;
  OpenFile& opened(int fd) const;

  void run_turn(Thread& thread);
  void wake_executors();
  bool advance();

  Disk& disk_;
  Random& random_;
  TimePoint now_;
  const SystemTime system_start_;
  const TimePoint start_;

  std::vector<Thread*> threads_;
  Thread* running_ = nullptr;
  std::map<EventHandle, std::function<void()>> events_;
  std::uint64_t event_count_ = 0;

  std::map<int, std::shared_ptr<OpenFile>> descriptors_;
  std::map<const File*, std::set<const OpenFile*>> shared_locks_;
  std::map<const File*, const OpenFile*> locks_;

  std::uint64_t disk_steps_ = 0;
  std::uint64_t operations_ = 0;
  std::uint64_t cut_at_step_ = UINT64_MAX;
  bool is_dead_ = false;

  friend class SimDriver;
  std::shared_ptr<OpenFile> share(int fd) const;
};

}  // namespace tidemark::sim
