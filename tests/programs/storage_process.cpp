// A process with a SQLiteStorage that does what its tester asks, and stops where it is told to.
//
// storage_process DIR opens the store in DIR and says `ready`. It reads commands from standard
// input, one a line, and answers each with one line once it is done:
//
//   append ID OFFSET SEED LENGTH               STATUS OFFSET, such as `committed 100`
//   append_held WHERE ID OFFSET SEED LENGTH    `held`; after one more line, as append
//   churn NAME COMMITS                         ok
//
// `append` writes the bytes of test_bytes.hpp. `append_held` is held at its first write, before or
// after it is done: WHERE is `before` or `after`. `churn` replaces the metadata of uploads of its
// own, long and each time another, so that each commit adds more than 60 KiB to the write-ahead log
// (churn.hpp). What fails is answered with `error TEXT`.

#include <exception>
#include <filesystem>
#include <functional>
#include <iostream>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>

#include <tidemark/engine/sync_wait.hpp>
#include <tidemark/storage/sqlite_storage.hpp>

#include "../fault_driver.hpp"
#include "../test_bytes.hpp"
#include "churn.hpp"

using namespace tidemark;
using namespace tidemark::test;

namespace {

std::string append(SQLiteStorage& storage, std::istringstream& words) try {
  std::string id;
  std::uint64_t offset = 0;
  std::uint64_t seed = 0;
  std::size_t length = 0;
  if (!(words >> id >> offset >> seed >> length)) return "error an argument is missing";
  const auto bytes = test_bytes(seed, offset, length);
  const AppendResult result = sync_wait(storage.executor(), storage.append(id, offset, bytes));
  constexpr const char* k_names[] = {"committed", "offset_conflict", "checksum_mismatch",
                                     "taken_over", "canceled"};
  return k_names[static_cast<int>(result.status)] + (" " + std::to_string(result.offset));
} catch (const std::exception& error) {
  return std::string("error ") + error.what();
}

std::string append_held(FaultEnvironment& environment, SQLiteStorage& storage,
                        std::istringstream& words) {
  std::string where;
  words >> where;
  const bool before = where == "before";
  environment.on_submit([&environment, before](const Operation& operation, std::uint64_t) {
    if (operation.kind != Operation::Kind::write) return Fault::none();
    if (environment.count(Operation::Kind::write) != 1) return Fault::none();
    return before ? Fault::hold() : Fault::hold_result();
  });
  std::string answer;
  std::thread appending([&] { answer = append(storage, words); });
  environment.wait_for_held();
  std::cout << "held" << std::endl;
  std::string line;
  std::getline(std::cin, line);
  environment.release();
  appending.join();
  return answer;
}

std::string churn_rows(SQLiteStorage& storage, std::istringstream& words) try {
  std::string name;
  int commits = 0;
  if (!(words >> name >> commits)) return "error an argument is missing";
  const std::function<void()> nothing = [] {};
  sync_wait(storage.executor(), churn(storage, name, commits, nothing));
  return "ok";
} catch (const std::exception& error) {
  return std::string("error ") + error.what();
}

std::string answer(FaultEnvironment& environment, SQLiteStorage& storage, const std::string& line) {
  std::istringstream words(line);
  std::string command;
  words >> command;
  if (command == "append") return append(storage, words);
  if (command == "append_held") return append_held(environment, storage, words);
  if (command == "churn") return churn_rows(storage, words);
  return "error unknown command";
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 2) throw std::runtime_error("usage: storage_process DIR");
  const std::filesystem::path folder = argv[1];
  FaultFixture fixture;
  StorageOptions options;
  options.db_path = folder / "uploads.db";
  options.upload_dir = folder / "uploads";
  const auto storage = sync_wait(fixture.engine, SQLiteStorage::open(fixture.engine, options));
  std::cout << "ready" << std::endl;
  for (std::string line; std::getline(std::cin, line);) {
    std::cout << answer(fixture.environment, *storage, line) << std::endl;
  }
  sync_wait(storage->executor(), storage->close(std::chrono::seconds(60)));
} catch (const std::exception& error) {
  std::cerr << error.what() << '\n';
  return 1;
}
