#pragma once

#include <semaphore>
#include <stop_token>
#include <thread>

namespace tidemark::test {

/// Another thread that requests stops, one a round, at a moment that differs from round to round.
class Stopper {
 public:
  ~Stopper() {
    thread_.request_stop();
    begin_.release();
  }

  /// Starts a round: spins for a while, then asks `source` to stop.
  void begin(const std::stop_source& source, unsigned spins) {
    source_ = source;
    spins_ = spins;
    begin_.release();
  }
  /// Blocks until the round is over.
  void end() { end_.acquire(); }

 private:
  void run(const std::stop_token& quit) {
    while (true) {
      begin_.acquire();
      if (quit.stop_requested()) return;
      for (volatile unsigned spin = 0; spin < spins_;) spin = spin + 1;
      source_.request_stop();
      end_.release();
    }
  }

  std::stop_source source_;
  unsigned spins_ = 0;
  std::binary_semaphore begin_{0};
  std::binary_semaphore end_{0};
  std::jthread thread_{[this](const std::stop_token& quit) { run(quit); }};
};

}  // namespace tidemark::test
