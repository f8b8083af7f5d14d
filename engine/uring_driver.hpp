#pragma once

#include <cstddef>

#include <liburing.h>

#include <tidemark/engine/blocking_pool.hpp>
#include <tidemark/engine/driver.hpp>

namespace tidemark {

/// The driver on io_uring: one io_uring_enter a turn submits everything new and waits. What the
/// ring cannot do goes to a small pool of threads. At most `queue_entries` operations are in the
/// ring at once and the completion queue has room for each with its cancel, so it cannot overflow.
///
/// Errors: the constructor throws std::system_error when the kernel refuses io_uring (sysctl,
/// seccomp) or lacks an operation that is needed (before Linux 5.15).
class UringDriver final : public Driver {
 public:
  UringDriver(const DriverOptions& options, Environment& environment);
  ~UringDriver() override;

  DriverKind kind() const override { return DriverKind::uring; }
  bool submit(Operation& operation) override;
  void cancel(Operation& operation) override;
  void wait(std::optional<TimePoint> deadline) override;
  void wake() override { event_.signal(); }
  DriverStats stats() const override { return stats_; }

 private:
  io_uring_sqe* next_sqe();
  void enqueue(Operation& operation);
  void watch_event();
  void enter(std::optional<TimePoint> deadline);
  void reap();
  void submit_elsewhere(Operation& operation);

  Environment& environment_;
  const std::size_t max_in_ring_;
  io_uring ring_{};
  bool enabled_ = false;         // By the executor's thread, which becomes the only submitter.
  bool watching_event_ = false;  // A poll of the eventfd is in the ring.
  detail::EventFd event_;
  std::size_t in_ring_ = 0;
  OperationQueue waiting_;   // For room in the ring.
  OperationQueue finished_;  // Withdrawn before they reached the ring, or refused after.
  DriverStats stats_;
  detail::BlockingPool pool_;
};

}  // namespace tidemark
