#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string>
#include <unistd.h>

namespace examples {

/// A line on a terminal that is drawn anew in place; nothing where standard error is no terminal.
class ProgressBar {
 public:
  explicit ProgressBar(std::uint64_t total) : total_(total) {}
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;
  ~ProgressBar() {
    if (visible_) std::fputs("\r\033[K", stderr);
  }

  /// What is done from now on, and how much of the total is behind it.
  void begin(const char* what, std::uint64_t done) {
    what_ = what;
    from_ = done;
    began_ = Clock::now();
    draw(done, began_);
  }

  /// Draws a few times a second, however often it is called.
  void show(std::uint64_t done) {
    const Clock::time_point now = Clock::now();
    if (now - drawn_ >= std::chrono::milliseconds(100)) draw(done, now);
  }

 private:
  using Clock = std::chrono::steady_clock;
  using Seconds = std::chrono::duration<double>;

  void draw(std::uint64_t done, Clock::time_point now) {
    if (!visible_) return;
    drawn_ = now;
    const double share = total_ == 0 ? 1 : static_cast<double>(done) / static_cast<double>(total_);
    const double mib = static_cast<double>(done - from_) / (1 << 20);
    const double seconds = std::max(Seconds(now - began_).count(), 0.001);
    const std::string bar(static_cast<std::size_t>(share * 40), '#');
    std::fprintf(stderr, "\r%-9s [%-40s] %3.0f %% %7.1f MiB/s\033[K", what_, bar.c_str(),
                 share * 100, mib / seconds);
  }

  const bool visible_ = ::isatty(STDERR_FILENO) == 1;
  const std::uint64_t total_;
  const char* what_ = "";
  std::uint64_t from_ = 0;
  Clock::time_point began_;
  Clock::time_point drawn_;
};

}  // namespace examples
