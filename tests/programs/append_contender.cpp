// A process that appends to uploads to which others append as well.
//
//   append_contender DIR INDEX UPLOADS APPENDS
//
// It opens the store in DIR, says `ready` and waits for a line. Then its tasks go around the
// uploads and append to one after the other, at the offset that is known; on a conflict at the true
// one, until each upload took APPENDS, a multiple of ten, of this process. What is acknowledged is
// noted in DIR/contender-INDEX before the next append (contention.hpp). After every hundredth it
// says `acknowledged N`, at the end `done CONFLICTS LONGEST_MICROS`, or `error TEXT`.

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <exception>
#include <fcntl.h>
#include <filesystem>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>
#include <system_error>
#include <unistd.h>
#include <vector>

#include <tidemark/engine/sync_wait.hpp>
#include <tidemark/engine/when_all.hpp>
#include <tidemark/storage/sqlite_storage.hpp>

#include "../driver_fixture.hpp"
#include "contention.hpp"

using namespace tidemark;
using namespace tidemark::test;

namespace {

using Clock = std::chrono::steady_clock;

// All at once; so tasks of one process meet at an upload, too.
constexpr std::uint64_t k_tasks = 10;

struct Contender {
  SQLiteStorage& storage;
  const std::uint64_t index;
  const int log;
  std::vector<std::uint64_t> offsets;  // As known, of each upload.
  std::uint64_t acknowledged = 0;
  std::uint64_t conflicts = 0;
  Clock::duration longest{};

  Executor& executor() const { return storage.executor(); }

  void note(const Acknowledged& append) {
    if (::write(log, &append, sizeof append) != sizeof append) {
      throw std::system_error(errno, std::generic_category(), "log");
    }
    if (++acknowledged % 100 == 0) std::cout << "acknowledged " << acknowledged << std::endl;
  }
};

/// False on a conflict.
Task<bool> try_append(Contender& self, std::uint64_t upload) {
  const UploadId id = contended_upload(upload);
  const std::uint64_t offset = self.offsets[upload];
  const auto bytes = test_bytes(self.index, offset, append_bytes(self.index, offset));
  const auto start = Clock::now();
  const AppendResult result = co_await self.storage.append(id, offset, bytes);
  self.longest = std::max(self.longest, Clock::now() - start);
  const bool committed = result.status == AppendStatus::committed;
  const bool conflict = result.status == AppendStatus::offset_conflict;
  if (!(committed && result.offset == offset + bytes.size()) &&
      !(conflict && result.offset > offset)) {
    throw std::runtime_error("status " + std::to_string(static_cast<int>(result.status)) +
                             " and offset " + std::to_string(result.offset) + " at " +
                             std::to_string(offset) + " of " + std::string(id.view()));
  }
  if (committed) self.note({upload, offset});
  if (conflict) ++self.conflicts;
  // Answers to two tasks may cross.
  self.offsets[upload] = std::max(self.offsets[upload], result.offset);
  co_return committed;
}

Task<void> go_around(Contender& self, std::uint64_t first, std::uint64_t rounds) {
  const std::uint64_t uploads = self.offsets.size();
  for (std::uint64_t i = 0; i < rounds * uploads; ++i) {
    bool done = false;
    while (!done) done = co_await try_append(self, (first + i) % uploads);
  }
}

Task<void> contend(Contender& self, std::uint64_t appends) {
  std::vector<Task<void>> tasks;
  for (std::uint64_t task = 0; task < k_tasks; ++task) {
    const std::uint64_t first = self.index + task * self.offsets.size() / k_tasks;
    tasks.push_back(go_around(self, first, appends / k_tasks));
  }
  co_await when_all(std::move(tasks));
}

void run(const std::filesystem::path& folder, const std::string& index, std::uint64_t uploads,
         std::uint64_t appends) {
  Engine engine(engine_options());
  StorageOptions options;
  options.db_path = folder / "uploads.db";
  options.upload_dir = folder / "uploads";
  const auto storage = sync_wait(engine, SQLiteStorage::open(engine, options));
  const int log = ::open((folder / ("contender-" + index)).c_str(),
                         O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  Contender contender{*storage, std::stoull(index), log, std::vector<std::uint64_t>(uploads)};
  std::cout << "ready" << std::endl;
  std::string line;
  std::getline(std::cin, line);
  std::string end;
  try {
    sync_wait(storage->executor(), contend(contender, appends));
    const auto longest = std::chrono::duration_cast<std::chrono::microseconds>(contender.longest);
    end = "done " + std::to_string(contender.conflicts) + " " + std::to_string(longest.count());
  } catch (const std::exception& error) {
    end = std::string("error ") + error.what();
  }
  sync_wait(storage->executor(), storage->close(std::chrono::seconds(60)));
  std::cout << end << std::endl;
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 5) throw std::runtime_error("usage: append_contender DIR INDEX UPLOADS APPENDS");
  run(argv[1], argv[2], std::stoull(argv[3]), std::stoull(argv[4]));
} catch (const std::exception& error) {
  std::cout << "error " << error.what() << std::endl;
  return 1;
}
