#pragma once

#include <cerrno>
#include <csignal>
#include <fcntl.h>
#include <filesystem>
#include <spawn.h>
#include <string>
#include <sys/wait.h>
#include <system_error>
#include <unistd.h>
#include <utility>
#include <vector>

#include "../driver_fixture.hpp"
#include "../file_tools.hpp"

namespace tidemark::test {

/// How an example ended, and what it wrote.
struct ExampleResult {
  int exit_code = -1;  // -1 when a signal ended it.
  std::string output;
  std::string errors;
};

/// A program of examples/ that runs in `folder`, where what it writes is kept in output.txt and
/// errors.txt. On the driver that the tests run on: for threads io_uring is denied to it. Killed at
/// the end, unless it was waited for.
class ExampleProgram {
 public:
  ExampleProgram(const std::filesystem::path& folder, const std::string& name,
                 std::vector<std::string> arguments, const char* errors_to = "errors.txt")
      : folder_(folder) {
    arguments.insert(arguments.begin(),
                     (std::filesystem::path(TIDEMARK_EXAMPLES_DIR) / name).string());
    if (driver_kind() == DriverKind::threads) {
      const auto deny = std::filesystem::path(TIDEMARK_TEST_PROGRAMS_DIR) / "deny_io_uring";
      arguments.insert(arguments.begin(), {deny.string(), "EPERM"});
    }
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);

    constexpr int k_flags = O_WRONLY | O_CREAT | O_TRUNC;
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addchdir_np(&actions, folder.c_str());
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "output.txt", k_flags, 0666);
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, errors_to, k_flags, 0666);
    const int error = ::posix_spawn(&pid_, argv[0], &actions, nullptr, argv.data(), environ);
    posix_spawn_file_actions_destroy(&actions);
    if (error != 0) throw std::system_error(error, std::generic_category(), arguments.front());
  }
  ~ExampleProgram() {
    if (pid_ <= 0) return;
    kill();
    wait_for_status();
  }
  ExampleProgram(const ExampleProgram&) = delete;
  ExampleProgram& operator=(const ExampleProgram&) = delete;

  /// Without waiting. It stays to be waited for.
  bool has_ended() const {
    siginfo_t info{};
    return ::waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
           info.si_pid != 0;
  }

  pid_t pid() const { return pid_; }

  /// Nothing happens when it has ended on its own. It stays to be waited for.
  void kill() { ::kill(pid_, SIGKILL); }

  ExampleResult wait() {
    const int status = wait_for_status();
    ExampleResult result;
    if (WIFEXITED(status)) result.exit_code = WEXITSTATUS(status);
    result.output = contents(folder_ / "output.txt");
    if (std::filesystem::exists(folder_ / "errors.txt")) {
      result.errors = contents(folder_ / "errors.txt");
    }
    // What the engine says of the denied ring, and says first.
    if (result.errors.starts_with("tidemark: driver: threads")) {
      result.errors.erase(0, result.errors.find('\n') + 1);
    }
    return result;
  }

 private:
  int wait_for_status() {
    int status = 0;
    ::waitpid(std::exchange(pid_, -1), &status, 0);
    return status;
  }

  const std::filesystem::path folder_;
  pid_t pid_ = -1;
};

/// Runs an example to its end.
inline ExampleResult run_example(const std::filesystem::path& folder, const std::string& name,
                                 std::vector<std::string> arguments = {}) {
  return ExampleProgram(folder, name, std::move(arguments)).wait();
}

}  // namespace tidemark::test
