#include <cerrno>
#include <cstdint>
#include <sys/eventfd.h>
#include <system_error>
#include <unistd.h>

#include <tidemark/engine/assert.hpp>
#include <tidemark/engine/event_fd.hpp>

namespace tidemark::detail {

EventFd::EventFd() : fd_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (fd_ < 0) throw std::system_error(errno, std::generic_category(), "eventfd");
}

EventFd::~EventFd() {
  ::close(fd_);
}

void EventFd::signal() noexcept {
  const std::uint64_t one = 1;
  // EAGAIN means that the counter is full, hence readable: as good as written.
  const ssize_t written = ::write(fd_, &one, sizeof one);
  TIDEMARK_ASSERT(written == sizeof one || errno == EAGAIN, "an eventfd can be written");
}

void EventFd::clear() noexcept {
  std::uint64_t count = 0;
  const ssize_t got = ::read(fd_, &count, sizeof count);
  TIDEMARK_ASSERT(got == sizeof count || errno == EAGAIN, "an eventfd can be read");
}

}  // namespace tidemark::detail
