// Many processes on one database: what they were told is what the files say.

#include <algorithm>
#include <atomic>
#include <chrono>
#include <fstream>
#include <memory>
#include <set>
#include <sstream>
#include <tuple>
#include <vector>

#include "../programs/churn.hpp"
#include "../programs/contention.hpp"
#include "sanitizers.hpp"
#include "sqlite_process.hpp"

using namespace tidemark;
using namespace tidemark::test;
namespace fs = std::filesystem;

namespace {

constexpr bool k_slow = k_thread_sanitizer || k_address_sanitizer;

/// Who appended where: upload, offset, contender.
using Appends = std::set<std::tuple<std::uint64_t, std::uint64_t, std::uint64_t>>;

struct Contention : SqliteFolder {
  void create_uploads(std::uint64_t count) {
    SqliteStore store(folder.path());
    for (std::uint64_t i = 0; i < count; ++i) create(store, contended_upload(i), std::nullopt);
    uploads = count;
  }

  void start(int processes, int appends) {
    for (int index = 1; index <= processes; ++index) {
      contenders.push_back(std::make_unique<HelperProgram>(
          "append_contender",
          std::vector<std::string>{folder.path().string(), std::to_string(index),
                                   std::to_string(uploads), std::to_string(appends)}));
    }
    for (const auto& contender : contenders) REQUIRE(contender->receive() == "ready");
    for (const auto& contender : contenders) contender->send("go");
  }

  /// What is true of the contender's end, after what it says in between.
  static std::string end_of(HelperProgram& contender) {
    std::string line = contender.receive();
    while (line.starts_with("acknowledged")) line = contender.receive();
    return line;
  }

  Appends acknowledged(std::uint64_t index) const {
    std::ifstream log(folder / ("contender-" + std::to_string(index)), std::ios::binary);
    Appends appends;
    Acknowledged one;
    while (log.read(reinterpret_cast<char*>(&one), sizeof one)) {
      appends.emplace(one.upload, one.offset, index);
    }
    return appends;
  }
  Appends all_acknowledged() const {
    Appends all;
    for (std::uint64_t index = 1; index <= contenders.size(); ++index)
      all.merge(acknowledged(index));
    return all;
  }

  /// Tells from the bytes below the committed offset who appended them where.
  Appends stored(std::uint64_t upload, const std::string& row) const {
    std::istringstream words(row);
    std::string ok;
    std::int64_t length = 0;
    std::size_t offset = 0;
    words >> ok >> length >> offset;
    const std::string all = contents(folder / "uploads" / contended_upload(upload));
    REQUIRE(all.size() >= offset);
    const auto bytes = as_bytes(all).first(offset);
    Appends appends;
    for (std::size_t at = 0; at < offset;) {
      std::uint64_t index = 1;
      while (index <= contenders.size() && !appended(bytes.subspan(at), index, at)) ++index;
      INFO("upload " << upload << " at " << at << " of " << offset);
      REQUIRE(index <= contenders.size());
      appends.emplace(upload, at, index);
      at += append_bytes(index, at);
    }
    return appends;
  }
  Appends all_stored() const {
    ForeignProcess foreign(folder.path());
    Appends all;
    for (std::uint64_t upload = 0; upload < uploads; ++upload) {
      all.merge(stored(upload, foreign.ask("get " + contended_upload(upload))));
    }
    return all;
  }

  std::uint64_t uploads = 0;
  std::vector<std::unique_ptr<HelperProgram>> contenders;

 private:
  /// Whether `bytes`, which begin at `offset`, begin with a whole append of the contender.
  static bool appended(std::span<const std::byte> bytes, std::uint64_t index,
                       std::uint64_t offset) {
    const std::size_t length = append_bytes(index, offset);
    return length <= bytes.size() && !first_wrong_byte(bytes.first(length), index, offset);
  }
};

}  // namespace

TEST_CASE_METHOD(Contention, "processes that contend for uploads lose and mix nothing",
                 "[A1][A2][A3][A5][A6]") {
  constexpr int k_processes = k_slow ? 4 : 8;
  constexpr int k_appends = k_slow ? 20 : 200;  // Of each process to each upload.
  create_uploads(k_slow ? 10 : 50);
  const auto start_time = std::chrono::steady_clock::now();
  start(k_processes, k_appends);
  std::uint64_t conflicts = 0;
  std::uint64_t longest_us = 0;
  for (const auto& contender : contenders) {
    std::istringstream end(end_of(*contender));
    std::string done;
    std::uint64_t conflicts_here = 0;
    std::uint64_t longest_here_us = 0;
    end >> done >> conflicts_here >> longest_here_us;
    INFO(end.str());
    CHECK(done == "done");
    CHECK(contender->wait() == 0);
    conflicts += conflicts_here;
    longest_us = std::max(longest_us, longest_here_us);
  }
  const auto seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start_time).count();
  const Appends told = all_acknowledged();
  CHECK(told.size() == k_processes * uploads * k_appends);
  CHECK((told == all_stored()));
  WARN(told.size() << " appends of " << k_processes << " processes in " << seconds << " s, "
                   << conflicts << " conflicts, the longest wait " << longest_us << " us");
}

TEST_CASE_METHOD(Contention, "processes that are killed while they contend leave true uploads",
                 "[A1][A2][A3][A5][A6]") {
  constexpr int k_processes = 4;
  constexpr int k_killed = 2;  // The first ones.
  constexpr int k_appends = k_slow ? 30 : 100;
  create_uploads(10);
  start(k_processes, k_appends);
  for (int i = 0; i < k_killed; ++i) {
    HelperProgram& contender = *contenders[static_cast<std::size_t>(i)];
    CHECK(contender.receive() == "acknowledged 100");
    contender.kill();
  }
  for (std::size_t i = k_killed; i < k_processes; ++i) {
    const std::string end = end_of(*contenders[i]);
    INFO(end);
    CHECK(end.starts_with("done"));
    CHECK(contenders[i]->wait() == 0);
  }
  const Appends told = all_acknowledged();
  const Appends found = all_stored();
  CHECK((std::ranges::includes(found, told)));

  // What was committed and not told is the last append to an upload of one who was killed.
  Appends untold;
  std::ranges::set_difference(found, told, std::inserter(untold, untold.end()));
  std::set<std::pair<std::uint64_t, std::uint64_t>> once;
  for (const auto& [upload, offset, index] : untold) {
    CHECK(index <= k_killed);
    CHECK(once.emplace(upload, index).second);
  }
}

TEST_CASE("the write-ahead log stays bounded while two processes commit back to back") {
  constexpr std::uint64_t k_bound = std::uint64_t{80} << 20;
  constexpr int k_commits = k_slow ? 200 : 2000;  // Of each.
  static_assert(k_slow || 2 * k_commits * k_churned_bytes > 2 * k_bound);
  const TemporaryFolder folder;
  SqliteStore store(folder.path());
  StorageProcess other(folder.path());
  std::uint64_t largest_file = 0;
  std::uint64_t largest_told = 0;
  const std::function<void()> look = [&] {
    largest_file = std::max<std::uint64_t>(largest_file, fs::file_size(folder / "uploads.db-wal"));
    largest_told = std::max(largest_told, store->stats().wal_bytes);
  };
  other.send("churn theirs " + std::to_string(k_commits));
  store.wait(churn(*store, "ours", k_commits, look));
  CHECK(other.receive() == "ok");
  look();
  CHECK(largest_file < k_bound);
  CHECK(largest_told < k_bound);
  CHECK(largest_told > 0);
  WARN("the log was " << (largest_file >> 10) << " KiB at most, " << (largest_told >> 10)
                      << " KiB as told");
}

TEST_CASE("what is committed reaches the database file while the log grows") {
  constexpr std::uint64_t k_restart_bytes = std::uint64_t{64} << 20;  // There commits wait for it.
  constexpr int k_commits = k_slow ? 300 : 900;
  static_assert(k_commits * (k_churned_bytes + (8 << 10)) < k_restart_bytes);
  const TemporaryFolder folder;
  SqliteStore store(folder.path());
  const std::function<void()> nothing = [] {};
  const fs::path database = folder / "uploads.db";
  const std::uint64_t before = fs::file_size(database);
  store.wait(churn(*store, "ours", k_commits, nothing));
  CHECK(store->stats().wal_bytes < k_restart_bytes);
  CHECK(fs::file_size(database) >= before + k_churned_bytes);
}
