#pragma once

#include <cstdint>
#include <exception>
#include <string>

#include <tidemark/storage/sqlite_storage.hpp>

#include "machine.hpp"
#include "model.hpp"

namespace tidemark::sim {

/// What all clients of one life of the machine share.
struct Life {
  Machine& machine;
  Model& model;
  std::exception_ptr violation = {};  // The first.
};

/// Does `count` operations of all kinds, one after the other, and checks every answer against the
/// model. After a power cut answers mean nothing.
Task<void> run_client(Executor& executor, Life& life, SQLiteStorage& storage, unsigned count);

/// After a start: what is on the disk is what the model knows, and nothing less.
Task<void> check_all(Executor& executor, Life& life, SQLiteStorage& storage);

}  // namespace tidemark::sim
