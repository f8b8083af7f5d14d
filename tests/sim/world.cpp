#include "world.hpp"

#include <chrono>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include <sqlite3.h>

#include "check.hpp"
#include "foreign.hpp"
#include "judge.hpp"
#include "server.hpp"
#include "sim_vfs.hpp"

namespace tidemark::sim {
namespace {

using namespace std::chrono_literals;

constexpr std::uint64_t k_lives = 8;
constexpr std::uint64_t k_steps_between_cuts = 20;  // Of those that are only tried.
constexpr std::string_view k_uploads = "/sim/uploads/";

class Story {
 public:
  Story(std::uint64_t seed, bool is_verbose, Totals& totals)
      : random_(seed), is_verbose_(is_verbose), totals_(totals) {}

  void run() {
    for (std::uint64_t i = 0; i < k_lives; ++i) live();
  }

 private:
  using Servers = std::vector<std::unique_ptr<Server>>;

  void live();
  /// One or two rounds of clients, each with one or two servers. Some die between.
  void run_rounds(Life& life);
  /// False when the power is gone.
  bool open_servers(Life& life, Servers& servers, bool after_cut);
  void run_clients(Life& life, Servers& servers);
  FaultRates choose_faults();
  /// Before or during the next round, or not at all.
  void shift_calendar(Machine& machine);
  /// Judges what a power cut just now would leave.
  void try_power_cut(Machine& machine);

  Random random_;
  const bool is_verbose_;
  Totals& totals_;
  Disk disk_;
  Model model_;
  bool was_cut_ = false;  // How the life before ended.
  Machine::Clock clock_;
};

FaultRates Story::choose_faults() {
  FaultRates faults;
  if (random_.once_in(2)) return faults;
  if (random_.once_in(2)) faults.short_transfer = random_.between(2, 20);
  if (random_.once_in(2)) faults.interrupted = random_.between(2, 20);
  if (random_.once_in(3)) faults.failed = random_.between(20, 500);
  if (random_.once_in(3)) faults.full = random_.between(5, 100);
  if (random_.once_in(3)) faults.failed_sync = random_.between(5, 100);
  return faults;
}

void Story::shift_calendar(Machine& machine) {
  if (!random_.once_in(5)) return;
  for (std::uint64_t i = random_.between(1, 3); i > 0; --i) {
    const std::chrono::seconds by = std::chrono::hours(random_.below(48)) - 24h;
    const std::uint64_t longest = random_.once_in(2) ? 100 : 20'000;
    machine.after(std::chrono::milliseconds(random_.below(longest)),
                  [&machine, by] { machine.shift_calendar(by); });
  }
}

bool Story::open_servers(Life& life, Servers& servers, bool after_cut) {
  Machine& machine = life.machine;
  bool is_checked = false;
  const std::uint64_t wanted = random_.between(1, 2);
  while (servers.size() < wanted || servers.empty()) {
    auto server = std::make_unique<Server>(machine);
    if (!server->open()) {
      if (machine.is_dead()) return false;
      if (!server->process().is_dead()) throw Violation("it does not open");
      continue;
    }
    if (!std::exchange(is_checked, true)) {
      server->run("check", check_all(server->executor(), life, server->service(), after_cut));
    }
    servers.push_back(std::move(server));
  }
  return !life.violation && !machine.is_dead();
}

void Story::run_clients(Life& life, Servers& servers) {
  std::vector<std::unique_ptr<std::optional<Task<void>>>> clients;
  // Where few are at work, no commit hides what another has left.
  const bool is_quiet = random_.once_in(2);
  for (const auto& server : servers) {
    for (std::uint64_t i = is_quiet ? random_.below(2) : random_.between(1, 4); i > 0; --i) {
      clients.push_back(std::make_unique<std::optional<Task<void>>>());
      const auto count = static_cast<unsigned>(random_.between(1, 25));
      server->start(run_client(server->executor(), life, server->service(), count),
                    *clients.back());
    }
  }
  std::optional<Program> foreign;
  if (random_.once_in(3)) {
    foreign.emplace(life.machine, true);
    clients.push_back(std::make_unique<std::optional<Task<void>>>());
    const auto count = static_cast<unsigned>(random_.between(1, 10));
    foreign->start(run_foreign(foreign->executor(), life, foreign->process(), count),
                   *clients.back());
  }
  const auto all_ended = [&] {
    for (const auto& client : clients) {
      if (!client->has_value()) return false;
    }
    return true;
  };
  const bool ended = life.machine.run_until(all_ended, life.machine.now() + k_patience);
  if (!ended) throw Violation("a client hangs");
  for (const auto& client : clients) detail::TaskAccess::promise(**client).take();
}

void Story::run_rounds(Life& life) {
  Machine& machine = life.machine;
  Servers servers;
  const std::uint64_t rounds = random_.between(1, 2);
  for (std::uint64_t round = 0; round < rounds; ++round) {
    machine.set_faults({});
    if (!open_servers(life, servers, round == 0 && was_cut_)) return;
    machine.set_faults(choose_faults());
    shift_calendar(machine);
    if (random_.once_in(2)) {
      Server& victim = *servers[random_.below(servers.size())];
      machine.kill_at_step(victim.process(), machine.steps() + random_.between(1, 200),
                           random_.once_in(2));
    }
    run_clients(life, servers);
    if (life.violation || machine.is_dead()) return;
    std::erase_if(servers, [](const auto& server) { return server->process().is_dead(); });
    if (machine.had_errors() || servers.empty() || random_.once_in(2)) continue;
    machine.set_faults({});
    Server& server = *servers[random_.below(servers.size())];
    server.run("check", check_free(server.executor(), life, server.service()));
    if (life.violation || machine.is_dead()) return;
    std::erase_if(servers, [](const auto& each) { return each->process().is_dead(); });
  }
  if (random_.once_in(2)) machine.cut_power();
}

void Story::try_power_cut(Machine& machine) {
  constexpr const char* k_vfs = "tidemark-sim-left";
  Random chance(random_.bits());
  Disk left = disk_.after_power_cut(chance);
  Machine next(left, chance, machine.clock());
  const SimVfs vfs(next, k_vfs);
  const Rows rows = read_rows(next, k_vfs);
  for (const Upload* const upload : model_.all()) {
    const auto at = rows.find(upload->id);
    judge(*upload, at == rows.end() ? std::nullopt : std::optional(at->second), next, true);
  }
  ++totals_.cuts;
}

void Story::live() {
  Machine machine(disk_, random_, clock_);
  machine.is_verbose = is_verbose_;
  if (disk_.find("/sim") == nullptr) {
    disk_.create("/sim", true, machine.system_now());
    disk_.sync_all();
  }
  machine.log("start");
  const SimVfs vfs(machine);
  Life life{machine, model_};
  machine.on_write = [&](const OpenFile& file, std::uint64_t offset, bool is_locked) {
    if (!file.path.starts_with(k_uploads)) return;
    const Upload* const upload = model_.find(file.path.substr(k_uploads.size()));
    if (upload == nullptr) return;
    if (!is_locked) life.report(upload->id + ": written without its lock");
    if (offset < upload->durable) life.report(upload->id + ": A3: written below its offset");
  };
  // The kernel tells one process of the loss, and no other.
  machine.on_loss = [&](const OpenFile* file) {
    for (Upload* const upload : model_.all()) {
      const bool lost = file == nullptr || file->path == std::string(k_uploads) + upload->id;
      if (lost && upload->has_foreign_tail()) upload->presence = Upload::Presence::spoiled;
    }
  };
  machine.on_step = [&] {
    const bool is_weak = machine.steps() < life.weak_until_step;
    if (life.violation || (!is_weak && !random_.once_in(k_steps_between_cuts))) return;
    try {
      try_power_cut(machine);
    } catch (const Violation&) {
      life.violation = std::current_exception();
    }
  };
  if (!random_.once_in(6)) machine.cut_power_at_step(random_.between(1, 600));
  run_rounds(life);
  machine.set_faults({});
  was_cut_ = machine.is_dead();
  if (was_cut_) ++totals_.cuts;
  totals_.kills += machine.kills();
  totals_.operations += machine.operations();
  if (life.violation) std::rethrow_exception(life.violation);
  if (machine.open_descriptors() != 0) throw Violation("descriptors are left open");
  clock_ = machine.clock();
}

}  // namespace

void run_seed(std::uint64_t seed, bool is_verbose, Totals& totals) {
  // SQLite's own numbers, such as the salts of its log; 0 would make them truly random.
  sqlite3_test_control(SQLITE_TESTCTRL_PRNG_SEED, static_cast<int>(seed | 1U), nullptr);
  Story(seed, is_verbose, totals).run();
  ++totals.seeds;
}

}  // namespace tidemark::sim
