// A process that appends to uploads to which others append as well.
//
//   append_contender DIR INDEX UPLOADS APPENDS
//
// It opens the store in DIR, says `ready` and waits for a line. Then it appends to each of the
// uploads, all at once, at the offset that it knows; on a conflict it takes the true offset and
// goes on, until each upload took APPENDS of its appends. What is acknowledged is noted in
// DIR/contender-INDEX before the next append (contention.hpp). After every hundredth it says
// `acknowledged N`, at the end `done CONFLICTS LONGEST_MICROS`, or `error TEXT`.

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <exception>
#include <fcntl.h>
#include <filesystem>
#include <iostream>
#include <memory>
#include <span>
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

struct Contender {
  SQLiteStorage& storage;
  const std::uint64_t index;
  const std::uint64_t appends;  // Of each upload.
  const int log;
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

Task<void> contend(Contender& self, std::uint64_t upload) {
  const UploadId id = contended_upload(upload);
  std::array<std::byte, k_max_append_bytes> memory{};
  std::uint64_t offset = 0;
  for (std::uint64_t count = 0; count < self.appends;) {
    const auto bytes = std::span(memory).first(append_bytes(self.index, offset));
    fill_test_bytes(bytes, self.index, offset);
    const auto start = Clock::now();
    const AppendResult result = co_await self.storage.append(id, offset, bytes);
    self.longest = std::max(self.longest, Clock::now() - start);
    const bool committed = result.status == AppendStatus::committed;
    const bool expected =
        committed ? result.offset == offset + bytes.size()
                  : result.status == AppendStatus::offset_conflict && result.offset > offset;
    if (!expected) {
      throw std::runtime_error("status " + std::to_string(static_cast<int>(result.status)) +
                               " and offset " + std::to_string(result.offset) + " at " +
                               std::to_string(offset) + " of " + std::string(id.view()));
    }
    if (committed) {
      self.note({upload, offset});
      ++count;
    } else {
      ++self.conflicts;
    }
    offset = result.offset;
  }
}

Task<void> contend_for_all(Contender& self, std::uint64_t uploads) {
  std::vector<Task<void>> tasks;
  for (std::uint64_t upload = 0; upload < uploads; ++upload) tasks.push_back(contend(self, upload));
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
  Contender contender{*storage, std::stoull(index), appends, log};
  std::cout << "ready" << std::endl;
  std::string line;
  std::getline(std::cin, line);
  std::string end;
  try {
    sync_wait(storage->executor(), contend_for_all(contender, uploads));
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
