// count_enters pipe|memfd: a child process submits 64 writes in one turn of the loop, and this one
// counts the system calls that it makes, with ptrace, from just before to just after. Prints
// "ENTERS SUBMITTING SUBMITTED": calls of io_uring_enter, those that submit something, and how much
// they submit. Writes to a pipe complete within the call, those to a memfd on a kernel's worker.

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <fcntl.h>
#include <string_view>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <utility>
#include <vector>

#include <tidemark/engine/perform.hpp>
#include <tidemark/engine/sleep_for.hpp>
#include <tidemark/engine/sync_wait.hpp>
#include <tidemark/engine/when_all.hpp>

namespace {

using namespace tidemark;

// A system call that nothing else makes with this argument; it fails and changes nothing.
constexpr std::uint64_t k_mark = 0x7469646d;
enum : std::uint64_t { k_begin = 1, k_end = 2 };

void mark(std::uint64_t which) {
  ::syscall(SYS_getpriority, k_mark, which);
}

Task<std::int64_t> write_some(int fd, std::uint64_t offset) {
  static const std::array<char, 100> bytes{};
  Operation operation;
  operation.kind = Operation::Kind::write;
  operation.fd = fd;
  operation.const_buffer = bytes.data();
  operation.length = bytes.size();
  operation.offset = offset;
  const std::int64_t result = co_await detail::perform(operation);
  co_return result;
}

Task<bool> write_64(int fd) {
  for (int turn = 0; turn < 10; ++turn) co_await schedule();
  std::vector<Task<std::int64_t>> tasks;
  for (std::uint64_t i = 0; i < 64; ++i) tasks.push_back(write_some(fd, 100 * i));
  mark(k_begin);
  const std::vector<std::int64_t> results = co_await when_all(std::move(tasks));
  mark(k_end);
  for (const std::int64_t result : results) {
    if (result != 100) co_return false;
  }
  co_return true;
}

int run_child(std::string_view where) {
  ::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
  ::raise(SIGSTOP);
  std::array<int, 2> ends{-1, -1};
  if (where == "pipe") {
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) return 1;
  } else {
    ends[1] = ::memfd_create("data", MFD_CLOEXEC);
  }
  EngineOptions options;
  options.driver = DriverKind::uring;
  Engine engine(options);
  return sync_wait(engine, write_64(ends[1])) ? 0 : 1;
}

struct Counts {
  bool counting = false;
  unsigned enters = 0;
  unsigned submitting = 0;
  std::uint64_t submitted = 0;

  void on_call(const __ptrace_syscall_info& info) {
    if (info.op != PTRACE_SYSCALL_INFO_ENTRY) return;
    if (info.entry.nr == SYS_getpriority && info.entry.args[0] == k_mark) {
      counting = info.entry.args[1] == k_begin;
    } else if (counting && info.entry.nr == SYS_io_uring_enter) {
      ++enters;
      submitted += info.entry.args[1];
      if (info.entry.args[1] != 0) ++submitting;
    }
  }
};

/// Follows all threads of `child` to its end; false when it failed.
bool trace(pid_t child, Counts& counts) {
  int status = 0;
  ::waitpid(child, &status, 0);
  ::ptrace(PTRACE_SETOPTIONS, child, nullptr,
           PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_EXITKILL);
  ::ptrace(PTRACE_SYSCALL, child, nullptr, nullptr);
  while (true) {
    const pid_t stopped = ::waitpid(-1, &status, __WALL);
    if (stopped < 0) return false;
    if (!WIFSTOPPED(status)) {
      if (stopped == child) return WIFEXITED(status) && WEXITSTATUS(status) == 0;
      continue;
    }
    int signal = WSTOPSIG(status);
    if (signal == (SIGTRAP | 0x80)) {
      __ptrace_syscall_info info{};
      ::ptrace(PTRACE_GET_SYSCALL_INFO, stopped, sizeof info, &info);
      counts.on_call(info);
      signal = 0;
    } else if (signal == SIGTRAP || signal == SIGSTOP) {
      signal = 0;  // A thread was born.
    }
    ::ptrace(PTRACE_SYSCALL, stopped, nullptr, signal);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  const pid_t child = ::fork();
  // Not by returning: a leak check cannot run in a traced process.
  if (child == 0) ::_exit(run_child(argv[1]));
  Counts counts;
  if (!trace(child, counts)) return 1;
  std::printf("%u %u %llu\n", counts.enters, counts.submitting,
              static_cast<unsigned long long>(counts.submitted));
}
