#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "machine.hpp"
#include "model.hpp"

namespace tidemark::sim {

/// What the database says of an upload.
struct Row {
  std::uint64_t offset = 0;
  std::optional<std::uint64_t> length;
  std::optional<SystemTime> expires_at;
  std::string metadata;  // As JSON, what is not text behind it.

  bool is_complete() const { return length && offset >= *length; }
};
using Rows = std::map<std::string, Row>;

/// All rows, as a plain program on the machine reads them.
Rows read_rows(Machine& machine, const char* vfs, const char* path = "/sim/uploads.db");

/// Compares what was promised of an upload with its row and its file. Throws Violation.
/// `after_cut`: the power was gone just now.
void judge(const Upload& upload, const std::optional<Row>& row, const Machine& machine,
           bool after_cut);

/// After a power cut, or before the next, all that the disk has is also stable: the model forgets
/// what did not come to be.
void settle(Upload& upload, const std::optional<Row>& row, const Machine& machine);

}  // namespace tidemark::sim
