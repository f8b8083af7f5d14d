#pragma once

#include <array>
#include <cerrno>
#include <csignal>
#include <filesystem>
#include <spawn.h>
#include <stdexcept>
#include <string>
#include <string_view>
#include <sys/socket.h>
#include <sys/wait.h>
#include <system_error>
#include <unistd.h>
#include <utility>
#include <vector>

namespace tidemark::test {

/// A program of tests/programs that a test talks to: lines to its standard input, lines from its
/// standard output. Started by exec, so also while an engine runs here. Killed at the end, unless
/// it was waited for.
class HelperProgram {
 public:
  explicit HelperProgram(const std::string& name, std::vector<std::string> arguments = {}) {
    const std::string path = (std::filesystem::path(TIDEMARK_TEST_PROGRAMS_DIR) / name).string();
    arguments.insert(arguments.begin(), path);
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);

    std::array<int, 2> ends{};
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) fail(errno, path);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    const int error = ::posix_spawn(&pid_, path.c_str(), &actions, nullptr, argv.data(), environ);
    posix_spawn_file_actions_destroy(&actions);
    ::close(ends[1]);
    socket_ = ends[0];
    if (error != 0) {
      ::close(socket_);
      fail(error, path);
    }
  }
  ~HelperProgram() {
    if (pid_ > 0) kill();
    ::close(socket_);
  }
  HelperProgram(const HelperProgram&) = delete;
  HelperProgram& operator=(const HelperProgram&) = delete;

  void send(std::string_view line) {
    const std::string text = std::string(line) + "\n";
    const ssize_t sent = ::send(socket_, text.data(), text.size(), MSG_NOSIGNAL);
    if (sent != static_cast<ssize_t>(text.size())) fail(errno, "send");
  }

  /// The next line. Throws when the program ended before it.
  std::string receive() {
    for (;;) {
      if (const std::size_t end = received_.find('\n'); end != std::string::npos) {
        std::string line = received_.substr(0, end);
        received_.erase(0, end + 1);
        return line;
      }
      std::array<char, 4096> piece{};
      const ssize_t got = ::recv(socket_, piece.data(), piece.size(), 0);
      if (got <= 0) throw std::runtime_error("a helper program ended: " + received_);
      received_.append(piece.data(), static_cast<std::size_t>(got));
    }
  }

  std::string ask(std::string_view line) {
    send(line);
    return receive();
  }

  void signal(int number) const { ::kill(pid_, number); }
  /// Returns once the process is gone.
  void kill() {
    ::kill(pid_, SIGKILL);
    wait();
  }

  /// Ends its input and waits for it: its exit code, or minus the signal that ended it.
  int wait() {
    ::shutdown(socket_, SHUT_WR);
    int status = 0;
    ::waitpid(std::exchange(pid_, -1), &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }

 private:
  [[noreturn]] static void fail(int error, const std::string& what) {
    throw std::system_error(error, std::generic_category(), what);
  }

  pid_t pid_ = -1;
  int socket_ = -1;
  std::string received_;
};

}  // namespace tidemark::test
