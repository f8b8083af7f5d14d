#pragma once

// An engine whose threads all take their turns in the thread that uses it: an input runs the same
// way each time, and no time goes into waking threads.

#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <tidemark/engine/driver.hpp>
#include <tidemark/engine/engine.hpp>
#include <tidemark/engine/root.hpp>

#include "property.hpp"

namespace tidemark::test {

/// Its clocks stand still but for pauses that somebody waits for, at a time when every file and
/// every expiry is old; the log is dropped. For one engine with one executor, in one thread.
class OneThreadEnvironment final : public Environment {
 public:
  TimePoint now() override { return now_; }
  SystemTime system_now() override {
    return std::chrono::sys_days(std::chrono::year(2100) / 1 / 1);
  }
  std::uint64_t random() override { return ++random_; }
  void log(LogLevel, std::string_view) override {}
  std::unique_ptr<Driver> make_driver(const DriverOptions&) override {
    return std::make_unique<ImmediateDriver>(*this);
  }
  std::unique_ptr<TurnThread> start_thread(const std::string&, Turn turn) override {
    return std::make_unique<Thread>(*this, std::move(turn));
  }

  /// The turn of one thread that is due, after what time it takes until there is one.
  void step() {
    const auto next = std::ranges::min_element(threads_, {}, &Thread::due);
    require(next != threads_.end() && (*next)->due != TimePoint::max(), "what was begun goes on");
    now_ = std::max(now_, (*next)->due);
    (*next)->take_turn();
  }
  /// Somebody has posted to the executor.
  void wake_executor() { threads_.front()->wake(); }

 private:
  class Thread final : public TurnThread {
   public:
    Thread(OneThreadEnvironment& environment, Turn turn)
        : environment_(environment), turn_(std::move(turn)) {
      environment_.threads_.push_back(this);
    }
    ~Thread() override { std::erase(environment_.threads_, this); }
    void wake() override { due = TimePoint::min(); }

    void take_turn() {
      due = TimePoint::max();
      environment_.executor_due_ = TimePoint::max();
      const TimePoint asked = later(environment_.now(), turn_());
      // The executor's turn waits in its driver, and asks for the next one at once.
      const bool is_executor = this == environment_.threads_.front();
      due = std::min(due, is_executor ? environment_.executor_due_ : asked);
      if (!is_executor) environment_.wake_executor();
    }

    TimePoint due = TimePoint::min();

   private:
    OneThreadEnvironment& environment_;
    Turn turn_;
  };

  /// Performs each operation when it is submitted.
  class ImmediateDriver final : public Driver {
   public:
    explicit ImmediateDriver(OneThreadEnvironment& environment) : environment_(environment) {}
    DriverKind kind() const override { return DriverKind::threads; }
    bool submit(Operation& operation) override {
      detail::perform_blocking(operation);
      return true;
    }
    void cancel(Operation&) override {}
    void wait(std::optional<TimePoint> deadline) override {
      environment_.executor_due_ = deadline.value_or(TimePoint::max());
    }
    void wake() override {}
    DriverStats stats() const override { return {}; }

   private:
    OneThreadEnvironment& environment_;
  };

  TimePoint now_{};
  TimePoint executor_due_{};
  std::uint64_t random_ = 0;
  std::vector<Thread*> threads_;  // The executor's is the first.
};

/// An engine in it.
class OneThreadEngine {
 public:
  Engine& engine() { return engine_; }

  /// Runs `task` to its end and gives its result or throws its error.
  template <class T>
  T run(Task<T> task) {
    Executor& executor = engine_.executor();
    std::optional<Task<T>> finished;
    const auto keep = [&finished](Task<T>& result) { finished.emplace(std::move(result)); };
    detail::Root<T>::start(executor, std::move(task), keep, executor.engine_stop());
    environment_.wake_executor();
    while (!finished) environment_.step();
    return detail::TaskAccess::promise(*finished).take();
  }

 private:
  OneThreadEnvironment environment_;
  Engine engine_{EngineOptions{.environment = &environment_}};
};

}  // namespace tidemark::test
