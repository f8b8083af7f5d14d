// The ring is really used: system calls are counted from outside, with ptrace.

#include <sstream>
#include <string>

#include "../catch.hpp"
#include "../program.hpp"

namespace tidemark::test {
namespace {

struct Counted {
  unsigned enters = 0;
  unsigned submitting = 0;
  unsigned submitted = 0;
};

Counted count_enters(const char* where) {
  const ProgramResult result = run_program("count_enters", {where});
  CAPTURE(result.output, result.exit_code, result.signal);
  REQUIRE(result.exit_code == 0);
  Counted counted;
  std::istringstream(result.output) >> counted.enters >> counted.submitting >> counted.submitted;
  return counted;
}

TEST_CASE("64 writes of one turn cost one io_uring_enter", "[uring]") {
  const Counted inline_writes = count_enters("pipe");
  CHECK(inline_writes.enters == 1);
  CHECK(inline_writes.submitting == 1);
  CHECK(inline_writes.submitted == 64);
}

TEST_CASE("64 writes that complete later are submitted at once as well", "[uring]") {
  const Counted later_writes = count_enters("memfd");
  CHECK(later_writes.submitting == 1);
  CHECK(later_writes.submitted == 64);
}

}  // namespace
}  // namespace tidemark::test
