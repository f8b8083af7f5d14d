#pragma once

#include <atomic>
#include <semaphore>
#include <stop_token>
#include <thread>

namespace tidemark::test {

/// Another thread that requests stops, one a round, a given while after the round's task began.
class Stopper {
 public:
  ~Stopper() {
    thread_.request_stop();
    begin_.release();
  }

  /// Starts a round. Returns once the thread runs, so that waking it is no part of the race.
  void begin(const std::stop_source& source, unsigned spins) {
    source_ = source;
    spins_ = spins;
    begin_.release();
    awake_.acquire();
  }
  /// Said by the round's task as it begins: `source` is asked to stop when the spins are over.
  void start() { started_ = true; }
  /// Blocks until the round is over.
  void end() { end_.acquire(); }

 private:
  void run(const std::stop_token& quit) {
    while (true) {
      begin_.acquire();
      if (quit.stop_requested()) return;
      awake_.release();
      while (!started_.exchange(false)) std::this_thread::yield();
      for (volatile unsigned spin = 0; spin < spins_;) spin = spin + 1;
      source_.request_stop();
      end_.release();
    }
  }

  std::stop_source source_;
  unsigned spins_ = 0;
  std::binary_semaphore begin_{0};
  std::binary_semaphore awake_{0};
  std::atomic<bool> started_{false};
  std::binary_semaphore end_{0};
  std::jthread thread_{[this](const std::stop_token& quit) { run(quit); }};
};

}  // namespace tidemark::test
