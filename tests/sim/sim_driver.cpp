#include "sim_driver.hpp"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <utility>
#include <vector>

#include <tidemark/engine/assert.hpp>

#include "allocations.hpp"

namespace tidemark::sim {

using namespace std::chrono_literals;

SimDriver::SimDriver(Machine& machine, Process& process) : machine_(machine), process_(process) {
  process.drivers_.push_back(this);
}

SimDriver::~SimDriver() {
  std::erase(process_.drivers_, this);
  TIDEMARK_ASSERT(in_flight_.empty() && finished_.empty(),
                  "a driver ends only after its operations");
}

std::chrono::nanoseconds SimDriver::delay() {
  Random& chance = machine_.chance();
  if (chance.once_in(2)) return 0ns;
  if (!machine_.is_quick && chance.once_in(100)) {
    return std::chrono::milliseconds(chance.below(10'000));
  }
  return std::chrono::microseconds(chance.below(2000));
}

bool SimDriver::submit(Operation& operation) {
  using Kind = Operation::Kind;
  const Allocations::Scope own(false);
  ++stats_.submitted;
  const bool may_be_quick = operation.kind == Kind::lock || operation.kind == Kind::stat;
  if (may_be_quick && machine_.chance().once_in(2)) {
    operation.result = machine_.perform(operation, process_);
    ++stats_.completed;
    return true;
  }
  const auto [at, is_new] = in_flight_.try_emplace(&operation);
  TIDEMARK_ASSERT(is_new, "a request is used again only after it has come back");
  Flight& flight = at->second;
  if (operation.fd >= 0) flight.file = machine_.share(operation.fd);
  flight.kind = operation.kind;
  flight.fd = operation.fd;
  flight.offset = operation.offset;
  flight.memory = operation.const_buffer;
  flight.event = machine_.after(delay(), [this, &operation] { take_effect(operation); });
  return false;
}

bool SimDriver::is_same(const Flight& flight, const Operation& operation) {
  return flight.kind == operation.kind && flight.fd == operation.fd &&
         flight.offset == operation.offset && flight.memory == operation.const_buffer;
}

void SimDriver::take_effect(Operation& operation) {
  Flight& flight = in_flight_.at(&operation);
  TIDEMARK_ASSERT(is_same(flight, operation), "a request stays as it is until it has come back");
  TIDEMARK_ASSERT(flight.file == nullptr || flight.file == machine_.share(operation.fd),
                  "a descriptor stays open until its operations have completed");
  operation.result = machine_.perform(operation, process_);
  flight.has_effect = true;
  if (machine_.chance().once_in(2)) return finish(operation);
  flight.event = machine_.after(delay(), [this, &operation] { finish(operation); });
}

void SimDriver::finish(Operation& operation) {
  in_flight_.erase(&operation);
  finished_.push(operation);
  machine_.wake_driver(this);
}

void SimDriver::die() {
  std::vector<std::pair<Machine::EventHandle, Operation*>> left;
  for (const auto& [operation, flight] : in_flight_) {
    const bool closes = operation->kind == Operation::Kind::close;  // Its process does that.
    if (!flight.has_effect && !closes) left.emplace_back(flight.event, operation);
  }
  std::ranges::sort(left);
  for (const auto& [event, operation] : left) {
    if (machine_.chance().once_in(2)) continue;
    const std::int64_t result = machine_.perform(*operation, process_);
    const bool opened = operation->kind == Operation::Kind::open && result >= 0;
    if (opened) machine_.close_descriptor(static_cast<int>(result));
  }
}

void SimDriver::cancel(Operation& operation) {
  const Allocations::Scope own(false);
  const auto at = in_flight_.find(&operation);
  if (at == in_flight_.end() || at->second.has_effect || machine_.chance().once_in(2)) return;
  machine_.forget(at->second.event);
  operation.result = -ECANCELED;
  finish(operation);
}

void SimDriver::wait(std::optional<TimePoint> deadline) {
  machine_.bind_driver(this);
  if (finished_.empty()) return machine_.driver_waits(deadline);
  machine_.driver_waits(machine_.now());
  OperationQueue finished = std::exchange(finished_, OperationQueue());
  while (Operation* const operation = finished.pop()) {
    ++stats_.completed;
    operation->complete(*operation);
  }
}

}  // namespace tidemark::sim
