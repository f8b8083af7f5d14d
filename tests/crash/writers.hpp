#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <sys/types.h>

#include "checker.hpp"

namespace tidemark::crash {

/// Processes that do not do what they should; what the files say does not matter any more.
class Failure : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Two crash_writers with four writers each on one folder, whose records go to a checker. Killed at
/// the end. Not thread-safe. Throws Failure.
class Writers {
 public:
  static constexpr unsigned k_processes = 2;

  /// `generation`: the number of the first process; no other on this folder has it or a higher one.
  Writers(Checker& checker, std::filesystem::path folder, std::uint64_t generation, bool durable)
      : checker_(checker), folder_(std::move(folder)), generation_(generation), durable_(durable) {}
  ~Writers();
  Writers(const Writers&) = delete;
  Writers& operator=(const Writers&) = delete;

  /// For processes that are started from now on; none is running.
  void next_round() { ++round_; }
  void start(unsigned index);
  bool is_running(unsigned index) const { return processes_[index].pid > 0; }

  /// Returns once `count` acknowledgements that count have come. A process that ends before that,
  /// and a minute without any, are failures.
  void wait_for(std::uint64_t count) { wait_until(acknowledged_, count); }
  /// The same for operations that the disk had no room for.
  void wait_for_refusals(std::uint64_t count) { wait_until(refused_, count); }
  /// Takes what was said by now.
  void drain();
  /// Returns once it is gone, and all that it said is recorded.
  void kill(unsigned index);
  void kill_all();
  /// Lets it close its storage and end, which is a failure when it cannot.
  void stop(unsigned index);
  /// Whether acknowledgements that are read from now on count.
  void ignore_acknowledgements(bool ignore) { counts_ = !ignore; }

 private:
  struct Process {
    pid_t pid = -1;
    int input = -1;   // Its standard input; the process stops when it is closed.
    int output = -1;  // What it says.
    std::string text;
  };

  /// Until `counter` has grown by `count`.
  void wait_until(const std::uint64_t& counter, std::uint64_t count);
  /// Reads what is there; false at the end of it.
  bool read_some(Process& process);
  void read_all(Process& process);
  int wait(Process& process);

  Checker& checker_;
  const std::filesystem::path folder_;
  std::uint64_t round_ = 0;
  std::uint64_t generation_;
  const bool durable_;
  bool counts_ = true;
  std::uint64_t acknowledged_ = 0;
  std::uint64_t refused_ = 0;
  std::array<Process, k_processes> processes_;
};

}  // namespace tidemark::crash
