#include "fault_sweep.hpp"

#include <cstdio>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "allocations.hpp"
#include "fault_cases.hpp"
#include "judge.hpp"
#include "server.hpp"
#include "sim_vfs.hpp"

namespace tidemark::sim {
namespace {

constexpr std::uint64_t k_most_faults = 20'000;  // No operation here passes so many.

enum class Kind { call, full, short_transfer, allocation };
constexpr const char* k_kinds[] = {"call", "call that takes space", "transfer, cut short,",
                                   "allocation"};

/// One of the operation's calls of the system, or of its allocations, and perhaps all after it.
struct Fault {
  Kind kind = Kind::call;
  std::uint64_t number = 0;
  bool persistent = false;

  NthFault& of(Machine& machine) const {
    if (kind == Kind::call) return machine.call_fault;
    if (kind == Kind::full) return machine.full_fault;
    return kind == Kind::short_transfer ? machine.short_fault : Allocations::fault();
  }
  void arm(Machine& machine) const { of(machine).arm(number, persistent); }
  /// Whether it came to be.
  bool disarm(Machine& machine) const {
    const bool has_failed = of(machine).has_failed();
    of(machine).arm(0, false);
    return has_failed;
  }
  std::string text() const {
    return k_kinds[static_cast<int>(kind)] + (" " + std::to_string(number)) +
           (persistent ? " and all after it" : "");
  }
};

/// What the operation throws; null: nothing.
std::exception_ptr outcome(Server& server, Act act) {
  return server.error_of("the operation", act(server.executor(), server.service()));
}

void check_error(const std::exception_ptr& error, Kind kind) {
  if (!error) return;
  try {
    std::rethrow_exception(error);
  } catch (const StorageError& failure) {
    const Errc expected = kind == Kind::full ? Errc::no_space : Errc::io_error;
    if (kind != Kind::short_transfer && failure.code() == expected) return;
    throw Violation(std::string("says: ") + failure.what());
  } catch (const std::bad_alloc&) {
    if (kind != Kind::allocation) throw;
  }
}

void expect_success(const std::exception_ptr& error) {
  if (error) std::rethrow_exception(error);
}

std::unique_ptr<Server> open_server(Machine& machine) {
  auto server = std::make_unique<Server>(machine);
  if (!server->open()) std::rethrow_exception(server->open_error());
  return server;
}

void check_closed(const Machine& machine, const SimVfs& vfs) {
  if (machine.open_descriptors() != 0) throw Violation("descriptors are left open");
  if (machine.held_locks() != 0) throw Violation("locks are left");
  if (vfs.open_files() != 0) throw Violation("the database is left open");
}

/// Opening the storage, on a disk that has one, and closing it.
bool try_open(const Fault& fault) {
  Random random(fault.number);
  Disk disk;
  Machine machine(disk, random, {});
  disk.create("/sim", true, machine.system_now());
  const SimVfs vfs(machine);
  expect_success(outcome(*open_server(machine), set_up));
  {
    Server second(machine);
    fault.arm(machine);
    check_error(second.open() ? second.close() : second.open_error(), fault.kind);
  }
  const bool has_failed = fault.disarm(machine);
  check_closed(machine, vfs);
  const std::unique_ptr<Server> third = open_server(machine);
  for (const Act act : {check_kept, go_on}) expect_success(outcome(*third, act));
  return has_failed;
}

/// Bytes of others that may be lost are given up until the storage is opened anew.
bool is_given_up(const StorageError& error) {
  return std::string_view(error.what()).find("may be lost") != std::string_view::npos;
}

bool says(const std::exception_ptr& error, std::optional<Errc> code) {
  try {
    std::rethrow_exception(error);
  } catch (const StorageError& failure) {
    return code && failure.code() == *code;
  } catch (...) {
    return false;
  }
}

void check_effect(Server& server, const Case& operation) {
  expect_success(outcome(server, operation.effect));
  const Disk& disk = server.machine().disk();
  const bool is_made = !operation.makes || disk.find(operation.makes);
  if (!is_made) throw Violation(std::string(operation.makes) + " is missing");
  const bool is_left = operation.removes && disk.find(operation.removes);
  if (is_left) throw Violation(std::string(operation.removes) + " is still there");
}

/// The next call works: the operation itself, and others. False: it is given up.
bool do_again(Server& server, const Case& operation) {
  try {
    const auto error = outcome(server, operation.again ? operation.again : operation.act);
    if (!error || !says(error, operation.may_say)) expect_success(error);
    for (const Act act : {operation.effect, check_kept, go_on}) {
      expect_success(outcome(server, act));
    }
  } catch (const StorageError& stuck) {
    if (!is_given_up(stuck)) throw;
    return false;
  }
  return true;
}

/// Without a file, lock or buffer of an operation: all have ended for long.
void check_idle(Server& server, std::size_t descriptors) {
  const Machine& machine = server.machine();
  expect_success(outcome(server, wait_long));
  if (machine.open_descriptors() != descriptors) throw Violation("an operation's file stays open");
  if (machine.held_locks() != 0) throw Violation("a lock stays held");
  if (server.service().storage.buffers().bytes_in_use() != 0) throw Violation("a buffer stays out");
}

/// What the storage said, and what a power cut just then leaves of the disk.
struct Cut {
  std::vector<std::string> uploads;
  Disk disk;
  Machine::Clock clock;
};

std::vector<std::string> list(Server& server) {
  auto listed = server.run("list", list_all(server.executor(), server.service()));
  return detail::TaskAccess::promise(*listed).take();
}

/// What a failed sync has dropped shows only then.
void check_cut(Cut cut, Random& random) {
  Machine machine(cut.disk, random, cut.clock);
  const SimVfs vfs(machine);
  const std::unique_ptr<Server> server = open_server(machine);
  if (list(*server) != cut.uploads) throw Violation("a power cut took an upload back");
  expect_success(outcome(*server, check_kept));
}

bool run_operation(const Case& operation, const Fault& fault, Random& random, Cut& cut) {
  Disk disk;
  Machine machine(disk, random, {});
  disk.create("/sim", true, machine.system_now());
  const SimVfs vfs(machine);
  std::unique_ptr<Server> server = open_server(machine);
  const std::size_t descriptors = machine.open_descriptors();
  expect_success(outcome(*server, set_up));
  leave_orphans(machine);
  fault.arm(machine);
  const std::exception_ptr error = outcome(*server, operation.act);
  const bool has_failed = fault.disarm(machine);
  check_error(error, fault.kind);
  if (!error) check_effect(*server, operation);
  expect_success(outcome(*server, check_kept));
  if (!do_again(*server, operation)) {
    const bool may_be = fault.kind == Kind::call || fault.kind == Kind::full;
    if (!may_be) throw Violation("it is given up, and no sync has failed");
    expect_success(server->close());
    server = open_server(machine);
    if (!do_again(*server, operation)) throw Violation("it is given up when opened anew");
  }
  check_idle(*server, descriptors);
  cut = {list(*server), disk.after_power_cut(random), machine.clock()};
  expect_success(server->close());
  server.reset();
  check_closed(machine, vfs);
  return has_failed;
}

bool try_operation(const Case& operation, const Fault& fault) {
  Random random(fault.number);
  Cut cut;
  const bool has_failed = run_operation(operation, fault, random, cut);
  if (fault.kind == Kind::call) check_cut(std::move(cut), random);
  return has_failed;
}

/// `trial` tells whether the fault came to be.
void try_each(FaultSweep& sweep, const char* name,
              const std::function<bool(const Fault& fault)>& trial) {
  ++sweep.operations;
  for (const Kind kind : {Kind::call, Kind::full, Kind::short_transfer, Kind::allocation}) {
    for (const bool persistent : {false, true}) {
      for (Fault fault{kind, 1, persistent};; ++fault.number) {
        try {
          if (!trial(fault)) break;
          if (fault.number == k_most_faults) throw Violation("it never passes clean");
        } catch (const std::exception& error) {
          ++sweep.violations;
          std::printf("%s, %s: %s\n", name, fault.text().c_str(), error.what());
        }
        ++sweep.faults;
        if (fault.number == k_most_faults) break;
      }
    }
  }
}

}  // namespace

FaultSweep run_fault_sweep() {
  Allocations::watch_sqlite();
  FaultSweep sweep;
  for (const Case& each : fault_cases()) {
    try_each(sweep, each.name, [&each](const Fault& fault) { return try_operation(each, fault); });
  }
  try_each(sweep, "open and close", try_open);
  return sweep;
}

}  // namespace tidemark::sim
