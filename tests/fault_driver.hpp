#pragma once

// A driver between the executor and the real one that does to each operation what a test asks for.

#include <algorithm>
#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <utility>
#include <vector>

#include <tidemark/engine/assert.hpp>
#include <tidemark/engine/driver.hpp>
#include <tidemark/engine/engine.hpp>

#include "driver_fixture.hpp"

namespace tidemark::test {

/// What becomes of one operation.
struct Fault {
  enum class Kind { none, answer, done_but_answer, shorten, hold, hold_result };

  /// It passes.
  static Fault none() { return {}; }
  /// It is not done, and gives `result`, such as -EIO.
  static Fault answer(std::int64_t result) { return {Kind::answer, result, 0}; }
  /// It is done, and gives `result` in place of its own.
  static Fault done_but_answer(std::int64_t result) { return {Kind::done_but_answer, result, 0}; }
  /// A read or a write moves at most `length` bytes.
  static Fault shorten(std::uint64_t length) { return {Kind::shorten, 0, length}; }
  /// It begins only after FaultEnvironment::release. Cancelled before, it has no effect.
  static Fault hold() { return {Kind::hold, 0, 0}; }
  /// It is done, but gives its result only after FaultEnvironment::release, cancelled or not.
  static Fault hold_result() { return {Kind::hold_result, 0, 0}; }

  Kind kind = Kind::none;
  std::int64_t result = 0;
  std::uint64_t length = 0;
};

/// The environment of an engine whose operations meet faults.
///
///     FaultFixture fixture;
///     fixture.environment.on_submit([](const Operation& operation, std::uint64_t number) {
///       return number == 3 ? Fault::answer(-EIO) : Fault::none();
///     });
///
/// Thread safety: every member from any thread. Lifetime: outlives the engine, which ends only once
/// what is held was released.
class FaultEnvironment : public Environment {
 public:
  using Choose = std::function<Fault(const Operation& operation, std::uint64_t number)>;

  /// `choose` is asked on the executor's thread about each operation that is submitted from now on;
  /// `number` counts them, from 1, those that are repeated again. With nullptr all pass.
  void on_submit(Choose choose) {
    const std::lock_guard lock(mutex_);
    choose_ = std::make_shared<const Choose>(std::move(choose));
    counts_.fill(0);
    count_ = 0;
  }

  /// Operations submitted since the last `on_submit`, all and of one kind.
  std::uint64_t count() const {
    const std::lock_guard lock(mutex_);
    return count_;
  }
  std::uint64_t count(Operation::Kind kind) const {
    const std::lock_guard lock(mutex_);
    return counts_.at(static_cast<std::size_t>(kind));
  }

  /// Blocks until `count` operations or results are held.
  void wait_for_held(std::size_t count = 1) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return held_ >= count; });
  }
  /// The same, but ends when `ended` is set, with a `notice` after it. True when they are held.
  bool wait_for_held(std::size_t count, const std::atomic<bool>& ended) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return held_ >= count || ended; });
    return held_ >= count;
  }
  /// Lets those who wait look again.
  void notice() {
    const std::lock_guard lock(mutex_);
    changed_.notify_all();
  }
  /// Lets go what is held now.
  void release();

  std::unique_ptr<Driver> make_driver(const DriverOptions& options) override;

 private:
  friend class FaultDriver;

  Fault choose(const Operation& operation) {
    std::shared_ptr<const Choose> chooser;
    std::uint64_t number = 0;
    {
      const std::lock_guard lock(mutex_);
      number = ++count_;
      ++counts_.at(static_cast<std::size_t>(operation.kind));
      chooser = choose_;
    }
    return chooser && *chooser ? (*chooser)(operation, number) : Fault::none();
  }
  /// Gives the place of one more held operation in the order of all.
  std::uint64_t add_held() {
    const std::lock_guard lock(mutex_);
    ++held_;
    changed_.notify_all();
    return ++held_ever_;
  }
  /// One that was cancelled before it was let go.
  void remove_held(std::uint64_t place) {
    const std::lock_guard lock(mutex_);
    if (place > released_up_to_) --held_;
  }

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::shared_ptr<const Choose> choose_;
  std::array<std::uint64_t, 64> counts_{};  // By kind.
  std::uint64_t count_ = 0;
  std::size_t held_ = 0;  // And not let go yet.
  std::uint64_t held_ever_ = 0;
  std::uint64_t released_up_to_ = 0;
  std::vector<class FaultDriver*> drivers_;
};

/// What FaultEnvironment makes.
class FaultDriver final : public Driver {
 public:
  FaultDriver(FaultEnvironment& environment, std::unique_ptr<Driver> inner)
      : environment_(environment), inner_(std::move(inner)) {
    const std::lock_guard lock(environment_.mutex_);
    environment_.drivers_.push_back(this);
  }
  ~FaultDriver() override {
    TIDEMARK_ASSERT(held_.empty() && changed_.empty() && finished_.empty(),
                    "a driver ends only after its operations");
    const std::lock_guard lock(environment_.mutex_);
    std::erase(environment_.drivers_, this);
  }

  DriverKind kind() const override { return inner_->kind(); }
  DriverStats stats() const override { return inner_->stats(); }
  void wake() override { inner_->wake(); }

  bool submit(Operation& operation) override {
    const Fault fault = environment_.choose(operation);
    switch (fault.kind) {
      case Fault::Kind::none:
        return inner_->submit(operation);
      case Fault::Kind::answer:
        operation.result = fault.result;
        finished_.push(operation);
        return false;
      case Fault::Kind::hold:
        hold(operation, false);
        return false;
      default:
        return submit_changed(operation, fault);
    }
  }

  void cancel(Operation& operation) override {
    const auto held = std::find_if(held_.begin(), held_.end(),
                                   [&](const Held& one) { return one.operation == &operation; });
    if (held != held_.end()) {
      if (held->done) return;
      environment_.remove_held(held->place);
      held_.erase(held);
      operation.result = -ECANCELED;
      finished_.push(operation);
    } else if (finished_.remove(operation)) {
      finished_.push(operation);  // Too late.
    } else {
      inner_->cancel(operation);
    }
  }

  void wait(std::optional<TimePoint> deadline) override {
    let_go();
    FaultDriver* const outer = std::exchange(waiting_here, this);
    inner_->wait(finished_.empty() ? deadline : TimePoint::min());
    waiting_here = outer;
    OperationQueue finished = std::exchange(finished_, OperationQueue());
    while (Operation* operation = finished.pop()) operation->complete(*operation);
  }

  void release(std::uint64_t up_to) {
    released_up_to_ = up_to;
    wake();
  }

 private:
  struct Held {
    Operation* operation;
    bool done;
    std::uint64_t place;
  };
  /// How an operation was before it was changed on its way to the inner driver.
  struct Changed {
    Fault fault;
    std::uint64_t length;
    void (*complete)(Operation&) noexcept;
  };

  bool submit_changed(Operation& operation, const Fault& fault) {
    changed_[&operation] = {fault, operation.length, operation.complete};
    if (fault.kind == Fault::Kind::shorten) {
      operation.length = std::min(operation.length, fault.length);
    }
    operation.complete = [](Operation& done) noexcept {
      if (waiting_here->restore(done)) done.complete(done);
    };
    return inner_->submit(operation) && restore(operation);
  }

  /// Makes a finished operation what it was. False when its result is held.
  bool restore(Operation& operation) {
    const auto place = changed_.find(&operation);
    TIDEMARK_ASSERT(place != changed_.end(), "an operation finishes once");
    const Changed before = place->second;
    changed_.erase(place);
    operation.length = before.length;
    operation.complete = before.complete;
    if (before.fault.kind == Fault::Kind::done_but_answer) operation.result = before.fault.result;
    if (before.fault.kind != Fault::Kind::hold_result) return true;
    hold(operation, true);
    return false;
  }

  void hold(Operation& operation, bool done) {
    held_.push_back({&operation, done, environment_.add_held()});
  }

  void let_go() {
    while (!held_.empty() && held_.front().place <= released_up_to_) {
      const Held first = held_.front();
      held_.pop_front();
      if (first.done || inner_->submit(*first.operation)) finished_.push(*first.operation);
    }
  }

  inline static thread_local FaultDriver* waiting_here = nullptr;

  FaultEnvironment& environment_;
  std::unique_ptr<Driver> inner_;
  std::deque<Held> held_;
  std::unordered_map<Operation*, Changed> changed_;
  OperationQueue finished_;
  std::atomic<std::uint64_t> released_up_to_{0};
};

inline void FaultEnvironment::release() {
  const std::lock_guard lock(mutex_);
  held_ = 0;
  released_up_to_ = held_ever_;
  for (FaultDriver* driver : drivers_) driver->release(held_ever_);
}

inline std::unique_ptr<Driver> FaultEnvironment::make_driver(const DriverOptions& options) {
  return std::make_unique<FaultDriver>(*this, Environment::make_driver(options));
}

/// An engine with one executor, on the driver that the tests run on, behind faults.
template <class Env = FaultEnvironment>
struct BasicFaultFixture {
  static EngineOptions options_with(Environment& environment) {
    EngineOptions options = engine_options();
    options.environment = &environment;
    return options;
  }

  Env environment;
  Engine engine{options_with(environment)};
  Executor& executor = engine.executor();
};
using FaultFixture = BasicFaultFixture<>;

}  // namespace tidemark::test
