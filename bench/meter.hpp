#pragma once

// Measures one run of one baseline in the present process, from construction to `finish`. Uses the
// same small amount of memory however long it runs. For one thread.

#include <chrono>
#include <cstddef>
#include <utility>

#include <boost/histogram.hpp>

#include "bench.hpp"

namespace tidemark::bench {

class Meter {
 public:
  using Clock = std::chrono::steady_clock;

  /// Begins to measure now.
  Meter();

  /// Counts an append that was acknowledged `latency` after it started.
  void record(Clock::duration latency);

  /// The figures up to now, without the memory, which only the parent process can tell.
  BenchResult finish(std::size_t chunk_bytes) const;

 private:
  // Bins 1 % wide, from a microsecond to 100 seconds.
  using Axis = boost::histogram::axis::regular<double, boost::histogram::axis::transform::log>;
  static constexpr unsigned k_bins = 1840;

  double percentile_us(double share) const;

  decltype(boost::histogram::make_histogram(std::declval<Axis>())) latencies_us_;
  Clock::time_point started_;
  double cpu_at_start_s_;
};

}  // namespace tidemark::bench
