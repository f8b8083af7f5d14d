#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "client.hpp"

namespace tidemark::sim {

using Act = Task<void> (*)(Executor&, Service);

/// An operation in which something fails.
struct Case {
  const char* name;
  Act act;
  Act effect;  // What must hold when it did not fail.
  /// After that and after a failure: does it again, or what is left of it. Null: `act` does.
  Act again = nullptr;
  std::optional<Errc> may_say = {};  // What `again` answers when it was done before.
  const char* makes = nullptr;       // The name of a file.
  const char* removes = nullptr;
};

std::span<const Case> fault_cases();

/// Makes what the operations are tried on: "open" has a part of its bytes, "done", "part1" and
/// "part2" all, "old" has expired.
Task<void> set_up(Executor&, Service service);
/// What a crash two hours ago has left: a file without a row, and a row without a file.
void leave_orphans(Machine& machine);
/// What holds whatever has failed.
Task<void> check_kept(Executor&, Service service);
/// The next call works, of other kinds too.
Task<void> go_on(Executor&, Service service);
/// Their ids, offsets and lengths.
Task<std::vector<std::string>> list_all(Executor&, Service service);
/// All that was left to be done behind answers is done.
Task<void> wait_long(Executor&, Service service);

}  // namespace tidemark::sim
