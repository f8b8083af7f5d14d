// Cuts the power of a disk with a real file system while processes write to a storage on it, at
// random moments. After each cut the file system is mounted again, and a checker verifies from the
// files what the processes were told before the cut. Then the storage goes on there. Now and then
// the disk is full, and has room again either before the cut or after it.

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <fcntl.h>
#include <filesystem>
#include <memory>
#include <string>
#include <system_error>
#include <thread>
#include <unistd.h>
#include <utility>
#include <vector>

#include <CLI/CLI.hpp>

#include "../sim/random.hpp"
#include "checker.hpp"
#include "cut_disk.hpp"
#include "writers.hpp"

namespace tidemark::crash {
namespace {

struct Totals {
  std::uint64_t cuts = 0;
  std::uint64_t acknowledgements = 0;
  std::uint64_t violations = 0;
  std::uint64_t unflushed_writes = 0;  // Of the disk, at the cuts.
  std::uint64_t full_disks = 0;
  std::uint64_t lost_filesystems = 0;
};

/// The storage on one disk, through as many cuts as it survives.
class Story {
 public:
  /// `generation`: as of Writers.
  Story(std::string filesystem, sim::Random& random, std::uint64_t generation, bool broken,
        Totals& totals)
      : filesystem_(std::move(filesystem)),
        random_(random),
        totals_(totals),
        // btrfs relies on a disk that writes its superblock, of 4096 bytes, whole.
        disk_(filesystem_ == "btrfs" ? 4096 : 512),
        checker_(disk_.folder()),
        writers_(checker_, disk_.folder(), generation, !broken) {
    disk_.attach();
    disk_.format(filesystem_);
    disk_.mount(filesystem_);
    std::filesystem::create_directory(disk_.folder() / "released");
    disk_.unmount();
    mount_again();
  }

  /// Runs, cuts and checks. False after a violation. Throws Unmountable.
  bool go_on() {
    const std::uint64_t before = checker_.acknowledgements();
    bool is_good = true;
    try {
      run_to_a_moment();
      cut();
      mount_again();
    } catch (const Unmountable&) {
      throw;
    } catch (const std::exception& error) {
      writers_.kill_all();
      checker_.violation(error.what());
    }
    ++totals_.cuts;  // Also one that did not come about: it would be tried for ever.
    for (const std::string& text : checker_.check()) {
      std::printf("%s, after %ju cuts: %s\n", filesystem_.c_str(),
                  static_cast<std::uintmax_t>(totals_.cuts), text.c_str());
      ++totals_.violations;
      is_good = false;
    }
    std::fflush(stdout);
    totals_.acknowledgements += checker_.acknowledgements() - before;
    return is_good;
  }

 private:
  void run_to_a_moment() {
    writers_.next_round();
    for (unsigned i = 0; i < Writers::k_processes; ++i) writers_.start(i);
    // Not always just after an acknowledgement. Now and then a process has hardly begun.
    const bool at_start = totals_.cuts % 8 == 7;
    if (!at_start) writers_.wait_for(random_.between(1, 150));
    const std::uint64_t most_us = at_start ? 50'000 : 5000;
    // A full btrfs has no room to write even what is mapped: SQLite's shared memory is a SIGBUS
    // then.
    const bool may_fill = !at_start && filesystem_ != "btrfs";
    if (may_fill && totals_.cuts % 3 == 1) fill_and_free();
    std::this_thread::sleep_for(std::chrono::microseconds(random_.below(most_us)));
  }

  void fill_and_free() {
    fill();
    writers_.wait_for_refusals(random_.between(1, 100));
    ++totals_.full_disks;
    if (random_.once_in(2)) return;  // The power is cut while the disk is full.
    std::filesystem::remove(filler());
    writers_.wait_for(random_.between(1, 150));
  }

  std::filesystem::path filler() const { return disk_.folder() / "filler"; }
  /// The file system's last bytes are taken too, if nobody is faster.
  void fill() {
    const int fd = ::open(filler().c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    off_t size = 0;
    for (off_t step = 1 << 26; step >= 512;) {
      if (fd >= 0 && ::fallocate(fd, 0, size, step) == 0) {
        size += step;
      } else {
        step /= 2;
      }
    }
    ::close(fd);
  }

  void cut() {
    // What was said by now was said before the cut.
    writers_.drain();
    writers_.ignore_acknowledgements(true);
    totals_.unflushed_writes += disk_.cut(random_.bits(), 25 * random_.between(0, 4));
    writers_.kill_all();
    writers_.ignore_acknowledgements(false);
    disk_.unmount();
  }

  void mount_again() {
    disk_.detach();
    disk_.restore();
    disk_.attach();
    disk_.mount(filesystem_);
    std::filesystem::remove(filler());
  }

  const std::string filesystem_;
  sim::Random& random_;
  Totals& totals_;
  CutDisk disk_;
  Checker checker_;
  Writers writers_;
};

Totals run(const std::string& filesystem, std::uint64_t cuts, std::uint64_t seed, bool broken) {
  Totals totals;
  sim::Random random(seed);
  std::uint64_t generation = seed << 32;
  std::unique_ptr<Story> story;
  while (totals.cuts < cuts) {
    if (!story) {
      story = std::make_unique<Story>(filesystem, random, generation, broken, totals);
      generation += 1 << 20;
    }
    try {
      const bool is_good = story->go_on();
      if (!is_good) story.reset();        // What was lost once may be missed again: a new disk.
    } catch (const Unmountable& error) {  // A defect of the kernel's: no promise of ours is on it.
      std::printf("the file system did not survive a cut, which is not counted: %s\n",
                  error.what());
      if (++totals.lost_filesystems > 2 + cuts / 5) throw;
      story.reset();
    }
  }
  std::printf(
      "%s: %ju cuts, %ju acknowledgements, %ju violations; "
      "%ju writes were not flushed, %ju times the disk was full, %ju file systems lost\n",
      filesystem.c_str(), static_cast<std::uintmax_t>(totals.cuts),
      static_cast<std::uintmax_t>(totals.acknowledgements),
      static_cast<std::uintmax_t>(totals.violations),
      static_cast<std::uintmax_t>(totals.unflushed_writes),
      static_cast<std::uintmax_t>(totals.full_disks),
      static_cast<std::uintmax_t>(totals.lost_filesystems));
  std::fflush(stdout);
  return totals;
}

/// The exit code; 77 when something was skipped.
int run_all(const std::vector<std::string>& filesystems, std::uint64_t cuts, std::uint64_t seed,
            bool broken) {
  Totals sum;
  bool some_skipped = false;
  bool some_missed = false;
  for (const std::string& filesystem : filesystems) {
    try {
      make_mounts_private();
      const Totals totals = run(filesystem, cuts, seed, broken);
      sum.cuts += totals.cuts;
      sum.acknowledgements += totals.acknowledgements;
      sum.violations += totals.violations;
      some_missed = some_missed || totals.violations == 0;
    } catch (const Unavailable& unavailable) {
      std::printf("SKIPPED %s: %s\n", filesystem.c_str(), unavailable.what());
      some_skipped = true;
    }
  }
  std::printf("%ju cuts, %ju acknowledgements, %ju violations\n",
              static_cast<std::uintmax_t>(sum.cuts),
              static_cast<std::uintmax_t>(sum.acknowledgements),
              static_cast<std::uintmax_t>(sum.violations));
  const bool is_good = broken ? !some_missed : sum.violations == 0;
  if (!is_good) return 1;
  return some_skipped ? 77 : 0;
}

}  // namespace
}  // namespace tidemark::crash

int main(int argc, char** argv) try {
  std::uint64_t cuts = 3;
  std::uint64_t seed = 1;
  std::vector<std::string> filesystems{"ext4", "xfs", "btrfs"};
  bool broken = false;
  CLI::App app("Cuts the power below a file system and checks what writers were promised");
  app.add_option("--cuts", cuts, "How many times, on each file system")->capture_default_str();
  app.add_option("--filesystem", filesystems, "ext4, xfs or btrfs; all, if none is named");
  app.add_option("--seed", seed, "Of all chance but the system's")->capture_default_str();
  app.add_flag("--broken", broken, "The storage flushes nothing: succeeds if that is caught");
  CLI11_PARSE(app, argc, argv);

  return tidemark::crash::run_all(filesystems, cuts, seed, broken);
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
