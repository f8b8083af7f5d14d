// The quickstart, and that the README shows it as it is.

#include <filesystem>
#include <string>

#include "../catch.hpp"
#include "../file_tools.hpp"
#include "../temporary_folder.hpp"
#include "example_program.hpp"

namespace tidemark::test {
namespace {

TEST_CASE("the quickstart stores, goes on and reads back, also when it is run again") {
  const TemporaryFolder folder;
  for (int run = 0; run < 2; ++run) {
    const ExampleResult result = run_example(folder.path(), "quickstart");
    CHECK(result.exit_code == 0);
    CHECK(result.output == "stored 7 bytes\ngoing on at byte 7 of 13\ncomplete: Hello, world\n");
    CHECK(result.errors.empty());
    CHECK(contents(folder / "uploads/greeting") == "Hello, world\n");
    CHECK(std::filesystem::exists(folder / "uploads.db"));
  }
}

}  // namespace
}  // namespace tidemark::test
