#include "world.hpp"

#include <chrono>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include <tidemark/engine/engine.hpp>
#include <tidemark/engine/root.hpp>

#include "client.hpp"
#include "sim_vfs.hpp"

namespace tidemark::sim {
namespace {

using namespace std::chrono_literals;

constexpr std::uint64_t k_lives = 8;
constexpr auto k_patience = 1h;  // More than any time-out, also one after the other.

/// A process: an engine and a storage on the machine that it shares with others.
class Process {
 public:
  explicit Process(Machine& machine) : machine_(machine) {
    EngineOptions options;
    options.environment = &machine;
    engine_ = std::make_unique<Engine>(options);
  }
  ~Process() { run("end of the engine", nothing(executor())); }

  /// Runs a task to its end. Empty when it failed, which only faults and a power cut may do.
  template <class T>
  std::optional<Task<T>> run(const char* what, Task<T> task) {
    std::optional<Task<T>> finished;
    start(std::move(task), finished);
    const bool ended =
        machine_.run_until([&] { return finished.has_value(); }, machine_.now() + k_patience);
    if (!ended) throw Violation(std::string(what) + " hangs");
    return finished;
  }
  template <class T>
  void start(Task<T> task, std::optional<Task<T>>& finished) {
    detail::Root<T>::start(
        executor(), std::move(task), [&](Task<T>& done) { finished.emplace(std::move(done)); },
        executor().engine_stop());
  }

  /// False when it did not open.
  bool open() {
    StorageOptions options;
    options.db_path = "/sim/uploads.db";
    options.upload_dir = "/sim/uploads";
    options.sqlite_vfs = SimVfs::k_name;
    auto opened = run("open", SQLiteStorage::open(*engine_, std::move(options)));
    try {
      storage_ = detail::TaskAccess::promise(*opened).take();
    } catch (const std::system_error& error) {
      machine_.log(LogLevel::error, error.what());
    }
    return storage_ != nullptr;
  }
  void close() {
    if (storage_ == nullptr) return;
    run("close", storage_->close(std::chrono::seconds(machine_.chance().below(10))));
    storage_.reset();
  }

  SQLiteStorage& storage() { return *storage_; }
  Executor& executor() { return engine_->executor(); }

 private:
  static Task<void> nothing(Executor&) { co_return; }

  Machine& machine_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<SQLiteStorage> storage_;
};

class Story {
 public:
  Story(std::uint64_t seed, bool is_verbose, Totals& totals)
      : random_(seed), is_verbose_(is_verbose), totals_(totals) {}

  void run() {
    for (std::uint64_t i = 0; i < k_lives; ++i) live();
  }

 private:
  void live();
  void choose_faults(Machine& machine);
  void run_clients(Life& life, std::vector<std::unique_ptr<Process>>& processes);

  Random random_;
  const bool is_verbose_;
  Totals& totals_;
  Disk disk_;
  Model model_;
  TimePoint now_{1s};
  SystemTime system_now_{std::chrono::seconds(1'700'000'000)};
};

void Story::choose_faults(Machine& machine) {
  if (random_.once_in(2)) return;
  FaultRates& faults = machine.faults;
  if (random_.once_in(2)) faults.short_transfer = random_.between(2, 20);
  if (random_.once_in(2)) faults.interrupted = random_.between(2, 20);
  if (random_.once_in(3)) faults.failed = random_.between(20, 500);
  if (random_.once_in(3)) faults.full = random_.between(5, 100);
  if (random_.once_in(3)) faults.failed_sync = random_.between(5, 100);
}

void Story::run_clients(Life& life, std::vector<std::unique_ptr<Process>>& processes) {
  std::vector<std::unique_ptr<std::optional<Task<void>>>> clients;
  for (const auto& process : processes) {
    for (std::uint64_t i = random_.between(1, 4); i > 0; --i) {
      clients.push_back(std::make_unique<std::optional<Task<void>>>());
      const auto count = static_cast<unsigned>(random_.between(1, 25));
      process->start(run_client(process->executor(), life, process->storage(), count),
                     *clients.back());
    }
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

void Story::live() {
  Machine machine(disk_, random_, now_, system_now_);
  machine.is_verbose = is_verbose_;
  if (disk_.find("/sim") == nullptr) {
    disk_.create("/sim", true, machine.system_now());
    disk_.sync_all();
  }
  machine.log(LogLevel::info, "start");
  const SimVfs vfs(machine);
  Life life{machine, model_};
  if (!random_.once_in(6)) machine.cut_power_at_step(random_.between(1, 600));
  {
    std::vector<std::unique_ptr<Process>> processes;
    processes.push_back(std::make_unique<Process>(machine));
    bool open = processes.front()->open();
    if (!open && !machine.is_dead()) throw Violation("it does not open");
    if (open) {
      Process& first = *processes.front();
      first.run("check", check_all(first.executor(), life, first.storage()));
    }
    if (open && random_.once_in(2)) {
      processes.push_back(std::make_unique<Process>(machine));
      open = processes.back()->open();
      if (!open && !machine.is_dead()) throw Violation("the second does not open");
    }
    choose_faults(machine);
    if (open && !life.violation) run_clients(life, processes);
    if (random_.once_in(2) && !machine.is_dead()) machine.cut_power();
    for (const auto& process : processes) process->close();
    machine.faults = {};
  }
  if (machine.is_dead()) ++totals_.cuts;
  totals_.operations += machine.operations();
  if (life.violation) std::rethrow_exception(life.violation);
  if (machine.open_descriptors() != 0) throw Violation("descriptors are left open");
  system_now_ = machine.system_now();
  now_ = machine.now();
}

}  // namespace

void run_seed(std::uint64_t seed, bool is_verbose, Totals& totals) {
  Story(seed, is_verbose, totals).run();
  ++totals.seeds;
}

}  // namespace tidemark::sim
