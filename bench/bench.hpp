#pragma once

// What the parts of tidemark_bench agree on. Each baseline of a workload is one function that takes
// the workload's options and returns its figures. It runs in a process of its own, so that memory
// and processor time are its own too, and it may end that process when something fails.

#include <cstddef>
#include <filesystem>
#include <optional>

#include <tidemark/engine/driver.hpp>
#include <tidemark/storage/append.hpp>

namespace tidemark::bench {

/// How the raw loop makes the bytes of an append stable before it commits the row.
enum class RawMode {
  fdatasync,     ///< A buffered write with a linked fdatasync.
  dsync,         ///< A buffered write with RWF_DSYNC.
  dontcache,     ///< RWF_DSYNC and RWF_DONTCACHE (Linux 6.14).
  direct,        ///< O_DIRECT and RWF_DSYNC.
  direct_alloc,  ///< The same, on blocks that were allocated before.
  syncfs,        ///< Buffered writes, and one syncfs for each group of commits.
  none,          ///< Buffered writes that nothing makes stable.
};

/// The workload `append`: every upload appends one chunk after the other, all uploads at once.
struct AppendWorkload {
  unsigned uploads = 64;
  std::size_t chunk_bytes = 64 * 1024;
  std::size_t upload_bytes = 0;  ///< Whole chunks; then the upload is deleted and begun again.
  double seconds = 10;
  Durability durability = Durability::full;
  DriverKind driver = DriverKind::uring;  ///< Of the engine.
  std::optional<RawMode> raw_mode = {};   ///< Of the raw loop; empty for the best one.
  std::filesystem::path data_dir = ".";   ///< An empty folder; whoever made it removes it.
};

/// The workload `waiters`: the appends above, in slices of time; in every other slice `waiters`
/// more tasks append to uploads that another process has locked, and so wait.
struct WaitersWorkload {
  AppendWorkload appends = {.uploads = 16, .seconds = 2};  ///< `seconds` is of one slice.
  unsigned waiters = 1000;
  unsigned slices = 10;  ///< Of each kind.
};

/// The figures of one run. An operation is one acknowledged append.
struct BenchResult {
  double ops_per_s = 0;
  double mb_per_s = 0;  ///< Of 1,000,000 bytes.
  double p50_us = 0;    ///< From the start of an append to its acknowledgement.
  double p99_us = 0;
  double cpu_s_per_gb = 0;  ///< User and system time, kernel workers included, for 10^9 bytes.
  double peak_rss_kib = 0;
};

/// Medians over the slices.
struct WaitersResult {
  double alone_ops_per_s = 0;
  double with_waiters_ops_per_s = 0;
  double ratio =
      0;  ///< Of a slice with waiters to the mean of its neighbours: a drift cancels out.
};

/// The workload through the library.
BenchResult run_engine_append(const AppendWorkload& options);

/// The same work without coroutines and without tidemark: what the machine can do.
BenchResult run_raw_append(const AppendWorkload& options);

WaitersResult run_waiters(const WaitersWorkload& options);

}  // namespace tidemark::bench
