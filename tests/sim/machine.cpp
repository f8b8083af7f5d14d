#include "machine.hpp"

#include <algorithm>
#include <cstdio>
#include <utility>

#include <tidemark/engine/assert.hpp>

#include "allocations.hpp"
#include "sim_driver.hpp"

namespace tidemark::sim {
/// A thread of the simulated computer. It runs whenever its time has come.
class Machine::Thread final : public TurnThread {
 public:
  Thread(Machine& machine, Process& whose, Turn each_turn)
      : due(machine.now_), turn(std::move(each_turn)), process(whose), machine_(machine) {
    machine_.threads_.push_back(this);
  }
  ~Thread() override { std::erase(machine_.threads_, this); }

  void wake() override {
    due = machine_.now_;
    woken = true;
  }

  TimePoint due;
  bool woken = false;
  Turn turn;
  Process& process;
  const Driver* driver = nullptr;  // Of an executor.

 private:
  Machine& machine_;
};

Machine::Machine(Disk& disk, Random& random, const Clock& clock)
    : disk_(disk),
      random_(random),
      now_(clock.now),
      start_(clock.now),
      system_start_(clock.system_now),
      latest_system_(clock.latest_system_now) {}

Machine::~Machine() {
  TIDEMARK_ASSERT(threads_.empty(), "every thread has ended");
}

SystemTime Machine::system_now() const {
  return system_start_ + std::chrono::floor<std::chrono::microseconds>(now_ - start_);
}

void Machine::shift_calendar(std::chrono::seconds by) {
  latest_system_ = latest_system_now();
  system_start_ += by;
  ++calendar_shifts_;
  log("the calendar is set");
}

void Machine::log(std::string_view line) const {
  if (!is_verbose) return;
  std::fprintf(stderr, "%12.6f %.*s\n", std::chrono::duration<double>(now_ - start_).count(),
               static_cast<int>(line.size()), line.data());
}

std::unique_ptr<TurnThread> Machine::start_thread(Process& process, Turn turn) {
  return std::make_unique<Thread>(*this, process, std::move(turn));
}

Process& Machine::running_process() const {
  TIDEMARK_ASSERT(running_process_ != nullptr, "only what a process does asks");
  return *running_process_;
}

void Machine::run_as(Process& process, const std::function<void()>& work) {
  Process* const before = std::exchange(running_process_, &process);
  work();
  running_process_ = before;
}

void Machine::bind_driver(const Driver* driver) {
  TIDEMARK_ASSERT(running_ != nullptr, "a driver waits in its executor's turn");
  running_->driver = driver;
}

void Machine::driver_waits(std::optional<TimePoint> deadline) {
  running_->due = std::max(now_, deadline.value_or(TimePoint::max()));
}

void Machine::wake_driver(const Driver* driver) {
  for (Thread* const thread : threads_) {
    if (thread->driver == driver) thread->due = now_;
  }
}

Machine::EventHandle Machine::after(std::chrono::nanoseconds delay, std::function<void()> run) {
  const EventHandle handle{now_ + delay, ++event_count_};
  events_.emplace(handle, std::move(run));
  return handle;
}

bool Machine::run_until(const std::function<bool()>& done, TimePoint deadline) {
  std::vector<Thread*> ready;
  wake_executors();  // The caller may have posted.
  while (!done()) {
    ready.clear();
    for (Thread* const thread : threads_) {
      if (thread->due <= now_) ready.push_back(thread);
    }
    const bool event = !events_.empty() && events_.begin()->first.first <= now_;
    const std::size_t choices = ready.size() + (event ? 1 : 0);
    if (choices == 0) {
      if (!advance() || now_ > deadline) return false;
      continue;
    }
    const std::size_t choice = random_.below(choices);
    if (choice < ready.size()) {
      run_turn(*ready[choice]);
    } else {
      const auto first = events_.extract(events_.begin());
      first.mapped()();
    }
  }
  return true;
}

void Machine::run_turn(Thread& thread) {
  running_ = &thread;
  running_process_ = &thread.process;
  thread.woken = false;
  thread.due = TimePoint::max();
  if (thread.process.is_killed()) shared_state->freeze();
  const std::chrono::nanoseconds pause = [&] {
    const Allocations::Scope counted(true);
    return thread.turn();
  }();
  if (thread.process.is_killed()) shared_state->thaw();
  running_ = nullptr;
  running_process_ = nullptr;
  if (thread.driver != nullptr) return;  // It slept in its driver, for as long as that said.
  thread.due = thread.woken ? now_ : later(now_, pause);
  wake_executors();  // It may have posted to any of them, and they do not know that they sleep.
}

void Machine::wake_executors() {
  for (Thread* const thread : threads_) {
    if (thread->driver != nullptr) thread->due = now_;
  }
}

bool Machine::advance() {
  TimePoint next = events_.empty() ? TimePoint::max() : events_.begin()->first.first;
  for (const Thread* const thread : threads_) next = std::min(next, thread->due);
  if (next == TimePoint::max()) return false;
  now_ = next;
  return true;
}

bool Machine::step(const Process& process, bool syncs_database) {
  if (process.is_dead()) return false;
  if (on_step && !is_dead_) on_step();
  ++steps_;
  if (steps_ == cut_at_step_) cut_power();
  const auto due = std::ranges::find_if(kills_, [&](const Kill& each) {
    return steps_ >= each.step && (!each.in_commit || (syncs_database && each.victim == &process));
  });
  if (due != kills_.end() && !is_dead_) {
    Process& victim = *due->victim;
    forget_kills_of(victim);  // What the kernel still does for it takes steps.
    kill(victim);
  }
  return !process.is_dead();
}

void Machine::forget_kills_of(const Process& victim) {
  std::erase_if(kills_, [&](const auto& each) { return each.victim == &victim; });
}

void Machine::cut_power() {
  disk_ = disk_.after_power_cut(random_);
  is_dead_ = true;
}

void Machine::kill(Process& process) {
  log("a process is killed");
  ++kill_count_;
  for (SimDriver* const driver : process.drivers_) driver->die();
  process.is_killed_ = true;
  for (const auto& [fd, file] : descriptors_) {
    if (file->owner == &process) release_locks(*file);
  }
  shared_state->release_all_of(process);
  shared_state->freeze();  // It may be in the middle of a turn.
}

std::size_t Machine::held_locks() const {
  std::size_t count = locks_.size();
  for (const auto& [file, holders] : shared_locks_) count += holders.size();
  return count;
}

void Machine::set_faults(const FaultRates& rates) {
  faults_ = rates;
  had_errors_ = had_errors_ || rates.any_error();
}

}  // namespace tidemark::sim
