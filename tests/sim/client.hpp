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
