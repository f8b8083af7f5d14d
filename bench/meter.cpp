#include "meter.hpp"

#include <sys/resource.h>

namespace tidemark::bench {
namespace {

double seconds(const timeval& time) {
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
}

/// Of all threads of this process, those that the kernel adds for io_uring included.
double cpu_seconds() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

}  // namespace

Meter::Meter()
    : latencies_us_(boost::histogram::make_histogram(Axis(k_bins, 1.0, 1e8))),
      started_(Clock::now()),
      cpu_at_start_s_(cpu_seconds()) {}

void Meter::record(Clock::duration latency) {
  latencies_us_(std::chrono::duration<double, std::micro>(latency).count());
}

BenchResult Meter::finish(std::size_t chunk_bytes) const {
  const double elapsed_s = std::chrono::duration<double>(Clock::now() - started_).count();
  const double ops = boost::histogram::algorithm::sum(latencies_us_);
  const double bytes = ops * static_cast<double>(chunk_bytes);
  BenchResult result;
  result.ops_per_s = ops / elapsed_s;
  result.mb_per_s = bytes / elapsed_s / 1e6;
  result.p50_us = percentile_us(0.50);
  result.p99_us = percentile_us(0.99);
  result.cpu_s_per_gb = bytes == 0 ? 0 : (cpu_seconds() - cpu_at_start_s_) / bytes * 1e9;
  return result;
}

double Meter::percentile_us(double share) const {
  const double wanted = share * boost::histogram::algorithm::sum(latencies_us_);
  const Axis& axis = latencies_us_.axis();
  double seen = 0;
  for (int index = 0; index < axis.size(); ++index) {
    seen += latencies_us_.at(index);
    if (seen >= wanted) return axis.bin(index).center();
  }
  return axis.value(axis.size());
}

}  // namespace tidemark::bench
