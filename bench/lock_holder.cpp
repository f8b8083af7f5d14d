#include "lock_holder.hpp"

#include <cerrno>
#include <cstdlib>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "die.hpp"

namespace tidemark::bench {
namespace {

/// False when the other end was closed.
bool receive(int socket) {
  char byte = 0;
  return ::read(socket, &byte, 1) == 1;
}

void send(int socket) {
  if (::write(socket, "", 1) != 1) die("send to the other process", errno);
}

[[noreturn]] void hold(const std::vector<std::filesystem::path>& files, int socket) {
  if (!receive(socket)) std::_Exit(EXIT_SUCCESS);
  for (const auto& file : files) {
    const int descriptor = ::open(file.c_str(), O_RDWR | O_CLOEXEC);
    if (descriptor < 0 || ::flock(descriptor, LOCK_EX | LOCK_NB) != 0) die(file, errno);
  }
  send(socket);
  receive(socket);
  std::_Exit(EXIT_SUCCESS);
}

}  // namespace

LockHolder::LockHolder(const std::vector<std::filesystem::path>& files) {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) die("socketpair", errno);
  child_ = ::fork();
  if (child_ < 0) die("fork", errno);
  if (child_ == 0) {
    ::close(ends[0]);
    hold(files, ends[1]);
  }
  ::close(ends[1]);
  socket_ = ends[0];
}

LockHolder::~LockHolder() {
  ::close(socket_);
  ::waitpid(child_, nullptr, 0);
}

void LockHolder::lock() {
  send(socket_);
  if (!receive(socket_)) die("the other process did not lock the files");
}

}  // namespace tidemark::bench
