#include "notices.hpp"

#include <csignal>
#include <cstdio>
#include <string_view>
#include <unistd.h>

namespace examples {
namespace {

const bool on_terminal = ::isatty(STDERR_FILENO) == 1;

extern "C" void say_stopped(int signal) {
  std::string_view text = "\ntus_upload: stopped; run it again, and it goes on\n";
  if (!on_terminal) text.remove_prefix(1);  // No progress bar to leave the line of.
  [[maybe_unused]] const auto written = ::write(STDERR_FILENO, text.data(), text.size());
  ::raise(signal);  // Has its default action by now.
}

}  // namespace

void say(const std::string& line) {
  std::fprintf(stderr, "%stus_upload: %s\n", on_terminal ? "\r\033[K" : "", line.c_str());
}

void say_when_stopped() {
  struct sigaction action {};
  action.sa_handler = say_stopped;
  action.sa_flags = static_cast<int>(SA_RESETHAND);
  for (const int signal : {SIGINT, SIGTERM}) {
    struct sigaction before {};
    ::sigaction(signal, nullptr, &before);
    if (before.sa_handler != SIG_IGN) ::sigaction(signal, &action, nullptr);
  }
}

}  // namespace examples
