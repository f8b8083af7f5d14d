#pragma once

#include <map>
#include <optional>

#include <tidemark/engine/driver.hpp>

#include "machine.hpp"

namespace tidemark::sim {

/// An executor's driver on a simulated machine: completes operations in any order and after any
/// delay, and heeds a cancel in time, late or not at all.
class SimDriver final : public Driver {
 public:
  explicit SimDriver(Machine& machine) : machine_(machine) {}
  ~SimDriver() override;

  DriverKind kind() const override { return DriverKind::threads; }
  bool submit(Operation& operation) override;
  void cancel(Operation& operation) override;
  void wait(std::optional<TimePoint> deadline) override;
  void wake() override { machine_.wake_driver(this); }
  DriverStats stats() const override { return stats_; }

 private:
  struct Flight {
    Machine::EventHandle event;
    bool has_effect = false;
    std::shared_ptr<OpenFile> file;  // As the kernel keeps it.
  };

  std::chrono::nanoseconds delay();
  void take_effect(Operation& operation);
  void finish(Operation& operation);

  Machine& machine_;
  std::map<Operation*, Flight> in_flight_;  // Looked up only: their order is not the seed's.
  OperationQueue finished_;
  DriverStats stats_;
};

}  // namespace tidemark::sim
