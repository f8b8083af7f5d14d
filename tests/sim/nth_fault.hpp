#pragma once

#include <cstdint>

namespace tidemark::sim {

/// Fails the nth time that it is asked, and perhaps always after it.
class NthFault {
 public:
  /// Counts from 1, from now on. 0: it never fails.
  void arm(std::uint64_t number, bool persistent) {
    count_ = 0;
    number_ = number;
    persistent_ = persistent;
  }
  bool fails() {
    ++count_;
    return number_ != 0 && (count_ == number_ || (persistent_ && count_ > number_));
  }
  bool has_failed() const { return number_ != 0 && count_ >= number_; }

 private:
  std::uint64_t count_ = 0;
  std::uint64_t number_ = 0;
  bool persistent_ = false;
};

}  // namespace tidemark::sim
