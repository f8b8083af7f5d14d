#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace tidemark {

class Driver;
struct DriverOptions;

/// Monotonic time, for deadlines and pauses.
using TimePoint = std::chrono::steady_clock::time_point;
/// `duration` after `now`; the end of time when that is beyond it, as in "wait without limit".
inline TimePoint later(TimePoint now, std::chrono::nanoseconds duration) {
  return duration > TimePoint::max() - now ? TimePoint::max() : now + duration;
}

/// Calendar time in UTC, for what is stored.
using SystemTime = std::chrono::sys_time<std::chrono::microseconds>;

enum class LogLevel { info, warning, error };

/// What a thread does, one turn at a time. Returns how long to pause before the next turn unless
/// woken earlier: zero for at once, `k_until_woken` for no time limit.
using Turn = std::function<std::chrono::nanoseconds()>;
inline constexpr std::chrono::nanoseconds k_until_woken = std::chrono::nanoseconds::max();

/// A thread that runs turns. The destructor lets the present turn end, then joins.
class TurnThread {
 public:
  virtual ~TurnThread() = default;
  /// Another turn begins after this call, whatever the present one returns. Any thread.
  virtual void wake() = 0;
};

/// Everything the engine and the storage take from the world besides files: time, randomness,
/// threads, the log. The members here are the real ones; a program overrides `log` to send lines
/// elsewhere, a simulator overrides all of it and so owns every clock reading and every turn.
///
/// Thread safety: every member may be called from any thread. Lifetime: outlives the engine.
class Environment {
 public:
  virtual ~Environment() = default;

  virtual TimePoint now();
  virtual SystemTime system_now();
  /// Uniform over all 64-bit values. Not for secrets.
  virtual std::uint64_t random();
  /// One line, without its end. The real one writes warnings and errors to standard error.
  virtual void log(LogLevel level, std::string_view line);
  /// Ends its lock (flock) and closes a descriptor that a driver opened, for destructors, which
  /// cannot await. No operation on it may be on its way.
  virtual void close_descriptor(int fd) noexcept;
  /// Switches the open file between direct and cached I/O (O_DIRECT). Throws std::system_error.
  virtual void set_direct(int fd, bool direct);
  /// Ends what O_NONBLOCK asked for when the file was opened. Throws std::system_error.
  virtual void set_blocking(int fd);
  virtual std::unique_ptr<TurnThread> start_thread(const std::string& name, Turn turn);
  /// Makes the driver that `options` ask for. Throws std::system_error where the kernel refuses.
  virtual std::unique_ptr<Driver> make_driver(const DriverOptions& options);

  /// The real environment, shared by all engines that name no other.
  static Environment& real();
};

}  // namespace tidemark
