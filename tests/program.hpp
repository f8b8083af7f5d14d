#pragma once

#include <array>
#include <cerrno>
#include <fcntl.h>
#include <filesystem>
#include <spawn.h>
#include <string>
#include <sys/wait.h>
#include <system_error>
#include <unistd.h>
#include <vector>

namespace tidemark::test {

/// How a helper program of tests/programs ended, and all that it wrote.
struct ProgramResult {
  int exit_code = -1;  // -1 when a signal ended it.
  int signal = 0;
  std::string output;  // Standard output and error together.
};

/// Runs the helper program `name` to its end.
inline ProgramResult run_program(const std::string& name, std::vector<std::string> arguments = {}) {
  const auto check = [](int error, const char* what) {
    if (error != 0) throw std::system_error(error, std::generic_category(), what);
  };
  const std::string path = (std::filesystem::path(TIDEMARK_TEST_PROGRAMS_DIR) / name).string();
  arguments.insert(arguments.begin(), path);
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);

  std::array<int, 2> ends{};
  check(::pipe2(ends.data(), O_CLOEXEC) == 0 ? 0 : errno, "pipe2");
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDERR_FILENO);
  pid_t child = 0;
  const int error = ::posix_spawn(&child, path.c_str(), &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  ::close(ends[1]);

  ProgramResult result;
  std::array<char, 4096> piece{};
  for (ssize_t got = 1; error == 0 && got != 0;) {
    got = ::read(ends[0], piece.data(), piece.size());
    if (got > 0) result.output.append(piece.data(), static_cast<std::size_t>(got));
  }
  ::close(ends[0]);
  check(error, path.c_str());
  int status = 0;
  check(::waitpid(child, &status, 0) == child ? 0 : errno, "waitpid");
  if (WIFEXITED(status)) result.exit_code = WEXITSTATUS(status);
  if (WIFSIGNALED(status)) result.signal = WTERMSIG(status);
  return result;
}

}  // namespace tidemark::test
