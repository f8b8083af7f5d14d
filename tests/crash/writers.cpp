#include "writers.hpp"

#include <cerrno>
#include <chrono>
#include <csignal>
#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <system_error>
#include <unistd.h>
#include <utility>
#include <vector>

namespace tidemark::crash {
namespace {

constexpr std::chrono::minutes k_patience(1);

void check(int error, const char* what) {
  if (error != 0) throw std::system_error(error, std::generic_category(), what);
}

std::array<int, 2> make_pipe() {
  std::array<int, 2> ends{};
  check(::pipe2(ends.data(), O_CLOEXEC) == 0 ? 0 : errno, "pipe2");
  return ends;
}

}  // namespace

Writers::~Writers() {
  for (Process& process : processes_) {
    if (process.pid <= 0) continue;
    ::kill(process.pid, SIGKILL);
    wait(process);
  }
}

void Writers::start(unsigned index) {
  const std::string program = TIDEMARK_TEST_PROGRAMS_DIR "/crash_writer";
  std::vector<std::string> words{
      program, folder_.string(),          std::to_string(round_), std::to_string(generation_++),
      "4",     durable_ ? "full" : "none"};
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);

  const std::array<int, 2> input = make_pipe();
  const std::array<int, 2> output = make_pipe();
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, input[0], STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, output[1], STDOUT_FILENO);
  pid_t pid = -1;
  const int error =
      ::posix_spawn(&pid, program.c_str(), &actions, nullptr, arguments.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  ::close(input[0]);
  ::close(output[1]);
  ::fcntl(output[0], F_SETFL, O_NONBLOCK);
  processes_[index] = {.pid = pid, .input = input[1], .output = output[0], .text = {}};
  check(error, program.c_str());
}

bool Writers::read_some(Process& process) {
  std::array<char, 65'536> piece{};
  const ssize_t got = ::read(process.output, piece.data(), piece.size());
  if (got < 0) {
    check(errno == EAGAIN ? 0 : errno, "read");
    return true;
  }
  process.text.append(piece.data(), static_cast<std::size_t>(got));
  std::size_t begin = 0;
  for (std::size_t end = 0; (end = process.text.find('\n', begin)) != std::string::npos;) {
    const std::string line = process.text.substr(begin, end - begin);
    if (checker_.record(line, counts_)) ++acknowledged_;
    if (line == "full") ++refused_;
    begin = end + 1;
  }
  process.text.erase(0, begin);
  return got > 0;
}

void Writers::read_all(Process& process) {
  ::fcntl(process.output, F_SETFL, 0);
  while (read_some(process)) {
  }
}

void Writers::wait_until(const std::uint64_t& counter, std::uint64_t count) {
  const std::uint64_t wanted = counter + count;
  std::uint64_t before = counter;
  auto deadline = std::chrono::steady_clock::now() + k_patience;
  while (counter < wanted) {
    const auto now = std::chrono::steady_clock::now();
    if (counter > before) deadline = now + k_patience;
    if (now >= deadline) throw Failure("nothing that is waited for was said for a minute");
    before = counter;
    std::vector<pollfd> sources;
    std::vector<Process*> owners;
    for (Process& process : processes_) {
      if (process.pid <= 0) continue;
      sources.push_back({.fd = process.output, .events = POLLIN, .revents = 0});
      owners.push_back(&process);
    }
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - now);
    const int ready = ::poll(sources.data(), sources.size(), static_cast<int>(left.count()));
    check(ready < 0 && errno != EINTR ? errno : 0, "poll");
    for (std::size_t i = 0; i < sources.size(); ++i) {
      if (sources[i].revents == 0 || read_some(*owners[i])) continue;
      const int status = wait(*owners[i]);
      throw Failure("a writer ended by itself, with the wait status " + std::to_string(status));
    }
  }
}

void Writers::drain() {
  for (Process& process : processes_) {
    if (process.pid > 0) read_some(process);
  }
}

void Writers::kill(unsigned index) {
  Process& process = processes_[index];
  ::kill(process.pid, SIGKILL);
  read_all(process);
  wait(process);
}

void Writers::kill_all() {
  for (unsigned i = 0; i < k_processes; ++i) {
    if (is_running(i)) kill(i);
  }
}

void Writers::stop(unsigned index) {
  Process& process = processes_[index];
  ::close(std::exchange(process.input, -1));
  read_all(process);
  const int status = wait(process);
  if (status != 0) throw Failure("a writer stopped with the wait status " + std::to_string(status));
}

int Writers::wait(Process& process) {
  int status = 0;
  ::waitpid(std::exchange(process.pid, -1), &status, 0);
  if (process.input >= 0) ::close(std::exchange(process.input, -1));
  ::close(std::exchange(process.output, -1));
  return status;
}

}  // namespace tidemark::crash
