#include <thread>

#include <tidemark/engine/assert.hpp>
#include <tidemark/engine/executor.hpp>

namespace tidemark {
namespace {
thread_local Executor* current_executor = nullptr;
}  // namespace

Executor::Executor(Environment& environment, const DriverOptions& options, const std::string& name,
                   detail::RootCount& roots, std::stop_token engine_stop)
    : environment_(environment),
      roots_(roots),
      engine_stop_(std::move(engine_stop)),
      driver_(environment.make_driver(options)) {
  thread_ = environment_.start_thread(name, [this] {
    turn();
    return std::chrono::nanoseconds::zero();
  });
}

Executor::~Executor() {
  exit();
  thread_.reset();
  // What was posted may have run and ended the last task before its poster has left `post`.
  while (posting_.load(std::memory_order_acquire) != 0) std::this_thread::yield();
}

Executor* Executor::current() {
  return current_executor;
}

void Executor::post(WorkItem& item) {
  if (current_executor == this) return post_here(item);
  posting_.fetch_add(1, std::memory_order_relaxed);
  WorkItem* newest = posted_.load(std::memory_order_relaxed);
  do {
    item.next = newest;
  } while (!posted_.compare_exchange_weak(newest, &item, std::memory_order_seq_cst,
                                          std::memory_order_relaxed));
  // Paired with wait_for_events: either we see asleep_, or the executor sees the item.
  if (asleep_.load(std::memory_order_seq_cst) &&
      asleep_.exchange(false, std::memory_order_seq_cst)) {
    driver_->wake();
  }
  posting_.fetch_sub(1, std::memory_order_release);
}

void Executor::post_here(WorkItem& item) {
  ready_.push(item);
}

void Executor::run_next(WorkItem& item) {
  TIDEMARK_ASSERT(current_executor == this, "a task continues only on its executor's thread");
  TIDEMARK_ASSERT(next_ == nullptr, "one item continues at most one other");
  next_ = &item;
}

void Executor::add_timer(Timer& timer, TimePoint deadline) {
  TIDEMARK_ASSERT(!timer.armed, "a timer is added once at a time");
  timer.place = timers_.emplace(deadline, &timer);
  timer.armed = true;
}

void Executor::remove_timer(Timer& timer) {
  if (!timer.armed) return;
  timers_.erase(timer.place);
  timer.armed = false;
}

void Executor::exit() {
  exiting_.store(true, std::memory_order_seq_cst);
  driver_->wake();
}

void Executor::turn() {
  Executor* const outer = std::exchange(current_executor, this);
  take_posted();
  WorkQueue batch = ready_.take();
  while (WorkItem* item = batch.pop()) run(*item);
  fire_timers();
  wait_for_events();
  current_executor = outer;
}

void Executor::run(WorkItem& item) {
  WorkItem* running = &item;
  do {
    running->run(*running);
    running = std::exchange(next_, nullptr);
  } while (running != nullptr);
}

void Executor::take_posted() {
  WorkItem* newest = posted_.exchange(nullptr, std::memory_order_acquire);
  WorkItem* oldest = nullptr;
  while (newest != nullptr) {
    WorkItem* const older = std::exchange(newest->next, oldest);
    oldest = std::exchange(newest, older);
  }
  while (oldest != nullptr) {
    WorkItem* const newer = oldest->next;
    ready_.push(*oldest);
    oldest = newer;
  }
}

void Executor::fire_timers() {
  if (timers_.empty()) return;
  const TimePoint now = environment_.now();
  while (!timers_.empty() && timers_.begin()->first <= now) {
    Timer& timer = *timers_.begin()->second;
    remove_timer(timer);
    run(timer);
  }
}

void Executor::wait_for_events() {
  asleep_.store(true, std::memory_order_seq_cst);
  const bool busy = !ready_.empty() || posted_.load(std::memory_order_seq_cst) != nullptr ||
                    exiting_.load(std::memory_order_seq_cst);
  if (busy) {
    asleep_.store(false, std::memory_order_relaxed);
    driver_->wait(TimePoint::min());
  } else {
    driver_->wait(timers_.empty() ? std::nullopt : std::optional(timers_.begin()->first));
    asleep_.store(false, std::memory_order_relaxed);
  }
}

}  // namespace tidemark
