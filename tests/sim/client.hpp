#pragma once

#include <cstdint>
#include <exception>
#include <string>

#include <tidemark/storage/file_url_storage.hpp>
#include <tidemark/storage/sqlite_storage.hpp>

#include "machine.hpp"
#include "model.hpp"

namespace tidemark::sim {

/// What all clients of one life of the machine share.
struct Life {
  Machine& machine;
  Model& model;
  std::exception_ptr violation = {};  // The first.
  Upload* failed = nullptr;           // What met an error last, or the death of its process.
  Upload* contested = nullptr;        // Which somebody else is to make as well.
  std::uint64_t weak_until_step = 0;  // Until then a cut is tried at each step.

  /// What it leaves half done is at its weakest now.
  void note_failure(Upload* upload) {
    failed = upload;
    Random& chance = machine.chance();
    if (chance.once_in(8)) machine.cut_power_at_step(machine.steps() + chance.between(1, 12));
  }
  void note_death(Upload* upload) {
    note_failure(upload);
    weak_until_step = machine.steps() + 40;
  }
  void report(const std::string& what) {
    if (!violation) violation = std::make_exception_ptr(Violation(what));
  }
};

/// What a process offers its clients.
struct Service {
  Process& process;
  SQLiteStorage& storage;
  FileURLStorage& urls;
};

/// Does `count` operations of all kinds, one after the other, and checks every answer against the
/// model. After the death of its process answers mean nothing.
Task<void> run_client(Executor& executor, Life& life, Service service, unsigned count);

}  // namespace tidemark::sim
