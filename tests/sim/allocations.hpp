#pragma once

#include "nth_fault.hpp"

namespace tidemark::sim {

/// The allocations of the code under test, with operator new and by SQLite: those in the turns that
/// the machine runs, without the machine's own.
///
/// Thread safety: none; a simulated computer has one thread.
class Allocations {
 public:
  /// Before the first use of SQLite.
  static void watch_sqlite();
  static NthFault& fault();

  /// While it lives, allocations are the code's under test, or are not.
  class Scope {
   public:
    explicit Scope(bool counted);
    ~Scope();
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    const bool before_;
  };
};

}  // namespace tidemark::sim
