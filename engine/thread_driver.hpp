#pragma once

#include <tidemark/engine/blocking_pool.hpp>
#include <tidemark/engine/driver.hpp>

namespace tidemark {

/// A driver of blocking calls on a bounded pool, for kernels and containers that refuse io_uring.
/// An operation that a thread has begun cannot be cancelled; one that still waits can.
class ThreadDriver final : public Driver {
 public:
  ThreadDriver(unsigned max_threads, Environment& environment);

  DriverKind kind() const override { return DriverKind::threads; }
  bool submit(Operation& operation) override;
  void cancel(Operation& operation) override;
  void wait(std::optional<TimePoint> deadline) override;
  void wake() override { event_.signal(); }
  DriverStats stats() const override { return stats_; }

 private:
  Environment& environment_;
  detail::EventFd event_;
  OperationQueue canceled_;
  DriverStats stats_;
  detail::BlockingPool pool_;
};

}  // namespace tidemark
