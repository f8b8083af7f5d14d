// A process that changes a URL store, for tests that run several at once or kill one.
//
//   url_store_changer PATH NAME CHANGES      keys of its own, read back after each change
//   url_store_changer PATH NAME kill STEP    one change; killed before operation STEP, from 1
//
// The keys are NAME-0 to NAME-9; change number i sets NAME-(i % 10) to the URL i, and one in seven
// removes it instead. Ends with 0 when every change was found as it was left. TIDEMARK_TEST_DRIVER
// names the driver.

#include <array>
#include <csignal>
#include <cstdio>
#include <exception>
#include <optional>
#include <string>
#include <string_view>

#include <tidemark/engine/sync_wait.hpp>
#include <tidemark/storage/file_url_storage.hpp>

#include "../fault_driver.hpp"

using namespace tidemark;

namespace {

constexpr int k_keys = 10;
constexpr int k_one_in_removes = 7;

bool change(Executor& executor, URLStorage& store, const std::string& name, int changes) {
  std::array<std::optional<std::string>, k_keys> expected;
  for (int i = 0; i < changes; ++i) {
    const int key = i % k_keys;
    const std::string fingerprint = name + "-" + std::to_string(key);
    std::optional<std::string>& url = expected.at(static_cast<std::size_t>(key));
    if (i % k_one_in_removes == 0) {
      url.reset();
      sync_wait(executor, store.remove_url(fingerprint));
    } else {
      url = std::to_string(i);
      sync_wait(executor, store.set_url(fingerprint, *url));
    }
    const int other = (i * 3) % k_keys;
    const std::optional<std::string> found =
        sync_wait(executor, store.get_url(name + "-" + std::to_string(other)));
    if (found != expected.at(static_cast<std::size_t>(other))) {
      std::fprintf(stderr, "change %d: %s-%d is lost\n", i, name.c_str(), other);
      return false;
    }
  }
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) {
    std::fputs("usage: url_store_changer PATH NAME CHANGES | PATH NAME kill STEP\n", stderr);
    return 2;
  }
  test::FaultFixture fixture;
  FileURLStorage store(fixture.engine, argv[1]);
  const std::string name = argv[2];
  try {
    if (argc == 4) return change(fixture.executor, store, name, std::stoi(argv[3])) ? 0 : 1;
    const std::uint64_t step = std::stoull(argv[4]);
    fixture.environment.on_submit([step](const Operation&, std::uint64_t number) {
      if (number == step) std::raise(SIGKILL);
      return test::Fault::none();
    });
    sync_wait(fixture.executor, store.set_url(name, "new"));
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
