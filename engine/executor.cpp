#include <tidemark/engine/assert.hpp>
#include <tidemark/engine/executor.hpp>

namespace tidemark {
namespace {
thread_local Executor* current_executor = nullptr;
}  // namespace

Executor::Executor(Environment& environment, const DriverOptions& options, const std::string& name,
                   std::stop_token engine_stop)
    : environment_(environment),
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
  TIDEMARK_ASSERT(roots_.load() == 0, "an executor ends only after its tasks");
}

Executor* Executor::current() {
  return current_executor;
}

void Executor::post(WorkItem& item) {
  if (current_executor == this) return post_here(item);
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
}

void Executor::post_here(WorkItem& item) {
  ready_.push(item);
}

void Executor::run_next(WorkItem& item) {
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

void Executor::root_finished() {
  if (roots_.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
  { std::lock_guard lock(roots_mutex_); }  // A waiter has either seen zero or is in its wait.
  no_roots_.notify_all();
}

bool Executor::wait_for_roots(std::optional<TimePoint> deadline) {
  std::unique_lock lock(roots_mutex_);
  const auto none = [this] { return roots_.load(std::memory_order_acquire) == 0; };
  if (deadline) return no_roots_.wait_until(lock, *deadline, none);
  no_roots_.wait(lock, none);
  return true;
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
