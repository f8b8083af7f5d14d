#pragma once

namespace tidemark::detail {

/// An eventfd: how other threads end an executor's wait. Thread-safe.
class EventFd {
 public:
  EventFd();
  ~EventFd();
  EventFd(const EventFd&) = delete;
  EventFd& operator=(const EventFd&) = delete;

  int fd() const { return fd_; }
  /// Makes the descriptor readable.
  void signal() noexcept;
  /// Makes it unreadable again.
  void clear() noexcept;

 private:
  int fd_;
};

}  // namespace tidemark::detail
