#pragma once

#include <map>
#include <optional>

#include <tidemark/engine/driver.hpp>

#include "machine.hpp"

namespace tidemark::sim {

/// An executor's driver on a simulated machine: completes operations in any order and after any
/// delay, and heeds a cancel in time, late or not at all. Asserts that a request is let alone until
/// it has come back.
class SimDriver final : public Driver {
 public:
  SimDriver(Machine& machine, Process& process);
  ~SimDriver() override;

  DriverKind kind() const override { return DriverKind::threads; }
  bool submit(Operation& operation) override;
  void cancel(Operation& operation) override;
  void wait(std::optional<TimePoint> deadline) override;
  void wake() override { machine_.wake_driver(this); }
  DriverStats stats() const override { return stats_; }
  /// The process is killed: what is in flight takes effect now, or never.
  void die();

 private:
  struct Flight {
    Machine::EventHandle event;
    bool has_effect = false;
    std::shared_ptr<OpenFile> file;  // As the kernel keeps it.
    Operation::Kind kind{};
    int fd = -1;
    std::uint64_t offset = 0;
    const void* memory = nullptr;
  };

  std::chrono::nanoseconds delay();
  static bool is_same(const Flight& flight, const Operation& operation);
  void take_effect(Operation& operation);
  void finish(Operation& operation);

  Machine& machine_;
  Process& process_;
  std::map<Operation*, Flight> in_flight_;  // Looked up only: their order is not the seed's.
  OperationQueue finished_;
  DriverStats stats_;
};

}  // namespace tidemark::sim
