#pragma once

#include <chrono>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <utility>

#include <tidemark/engine/engine.hpp>
#include <tidemark/engine/root.hpp>
#include <tidemark/storage/file_url_storage.hpp>
#include <tidemark/storage/sqlite_storage.hpp>

#include "client.hpp"

namespace tidemark::sim {

/// More than any time-out, also one after the other.
constexpr std::chrono::hours k_patience{1};

/// A process with an engine, on the machine that it shares with others.
class Program {
 public:
  explicit Program(Machine& machine, bool is_foreign = false);
  ~Program();

  Process& process() { return process_; }
  Executor& executor() { return engine_->executor(); }
  Engine& engine() { return *engine_; }

  template <class T>
  void start(Task<T> task, std::optional<Task<T>>& finished) {
    detail::Root<T>::start(
        executor(), std::move(task), [&](Task<T>& done) { finished.emplace(std::move(done)); },
        executor().engine_stop());
  }
  /// Runs a task to its end. Throws Violation when it has none.
  template <class T>
  std::optional<Task<T>> run(const char* what, Task<T> task) {
    std::optional<Task<T>> finished;
    start(std::move(task), finished);
    const bool ended =
        machine_.run_until([&] { return finished.has_value(); }, machine_.now() + k_patience);
    if (!ended) throw Violation(std::string(what) + " hangs");
    return finished;
  }
  /// The same for one whose error matters; null: none.
  std::exception_ptr error_of(const char* what, Task<void> task);

 private:
  Machine& machine_;
  Process process_;
  std::unique_ptr<Engine> engine_;
};

/// One that has a storage and a URL store open.
class Server : public Program {
 public:
  explicit Server(Machine& machine);
  ~Server();

  Machine& machine() { return machine_; }

  /// False when it did not open: `open_error` says why.
  bool open();
  const std::exception_ptr& open_error() const { return open_error_; }
  /// What it throws; null: nothing. Only the destructor comes after it.
  std::exception_ptr close();
  Service service() { return {process(), *storage_, *urls_}; }

 private:
  Machine& machine_;
  std::exception_ptr open_error_;
  std::unique_ptr<SQLiteStorage> storage_;
  std::unique_ptr<FileURLStorage> urls_;
};

}  // namespace tidemark::sim
