#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <tidemark/engine/environment.hpp>

namespace tidemark::sim {

class Machine;
class SimDriver;

/// A process of a simulated machine: the environment of its engines. A dead one runs on until its
/// code has drained, but nothing that it does reaches the machine any more.
///
/// Thread safety: none. Lifetime: outlives its engines; the machine outlives it.
class Process final : public Environment {
 public:
  explicit Process(Machine& machine, bool is_foreign = false)
      : machine_(machine), is_foreign_(is_foreign) {}
  ~Process() override;

  /// Killed, or without power.
  bool is_dead() const;
  bool is_killed() const { return is_killed_; }
  /// Another implementation, which need not keep our rules.
  bool is_foreign() const { return is_foreign_; }

  TimePoint now() override;
  SystemTime system_now() override;
  std::uint64_t random() override;
  void log(LogLevel level, std::string_view line) override;
  void close_descriptor(int fd) noexcept override;
  void set_direct(int fd, bool direct) override;
  void set_blocking(int) override {}
  std::unique_ptr<TurnThread> start_thread(const std::string& name, Turn turn) override;
  std::unique_ptr<Driver> make_driver(const DriverOptions& options) override;

 private:
  friend class Machine;
  friend class SimDriver;

  Machine& machine_;
  const bool is_foreign_;
  bool is_killed_ = false;
  std::vector<SimDriver*> drivers_;
};

}  // namespace tidemark::sim
