#include "process.hpp"

#include <utility>

#include "allocations.hpp"
#include "machine.hpp"
#include "sim_driver.hpp"

namespace tidemark::sim {

Process::~Process() {
  machine_.forget_kills_of(*this);
}

bool Process::is_dead() const {
  return is_killed_ || machine_.is_dead();
}

TimePoint Process::now() {
  return machine_.now();
}

SystemTime Process::system_now() {
  return machine_.system_now();
}

std::uint64_t Process::random() {
  return machine_.chance().bits();
}

void Process::log(LogLevel, std::string_view line) {
  const Allocations::Scope own(false);
  machine_.log(line);
}

void Process::close_descriptor(int fd) noexcept {
  machine_.close_descriptor(fd);
}

void Process::set_direct(int fd, bool direct) {
  machine_.set_direct(fd, direct);
}

std::unique_ptr<TurnThread> Process::start_thread(const std::string&, Turn turn) {
  const Allocations::Scope own(false);
  return machine_.start_thread(*this, std::move(turn));
}

std::unique_ptr<Driver> Process::make_driver(const DriverOptions&) {
  const Allocations::Scope own(false);
  return std::make_unique<SimDriver>(machine_, *this);
}

}  // namespace tidemark::sim
