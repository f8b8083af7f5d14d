#include <cerrno>
#include <poll.h>

#include <tidemark/engine/thread_driver.hpp>

namespace tidemark {

ThreadDriver::ThreadDriver(unsigned max_threads, Environment& environment)
    : environment_(environment), pool_(max_threads, event_) {}

bool ThreadDriver::submit(Operation& operation) {
  ++stats_.submitted;
  if (detail::perform_at_once(operation)) {
    ++stats_.completed;
    return true;
  }
  pool_.submit(operation);
  return false;
}

void ThreadDriver::cancel(Operation& operation) {
  if (!pool_.withdraw(operation)) return;
  operation.result = -ECANCELED;
  canceled_.push(operation);
}

void ThreadDriver::wait(std::optional<TimePoint> deadline) {
  if (canceled_.empty()) {
    pollfd readable{event_.fd(), POLLIN, 0};
    timespec timeout{};
    if (deadline) {
      const auto left = detail::time_left(*deadline, environment_.now());
      timeout = {left.tv_sec, left.tv_nsec};
    }
    if (::ppoll(&readable, 1, deadline ? &timeout : nullptr, nullptr) > 0) event_.clear();
  }
  OperationQueue finished = pool_.take_completed();
  while (Operation* operation = canceled_.pop()) finished.push(*operation);
  while (Operation* operation = finished.pop()) {
    ++stats_.completed;
    operation->complete(*operation);
  }
}

}  // namespace tidemark
