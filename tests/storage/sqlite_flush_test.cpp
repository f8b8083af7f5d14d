// Whether what a SQLiteStorage acknowledges has left the disk's memory, as the kernel counts it.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <vector>

#include <tidemark/engine/when_all.hpp>

#include "loop_filesystem.hpp"
#include "sqlite_protocol.hpp"

using namespace tidemark;
using namespace tidemark::test;
namespace fs = std::filesystem;

namespace {

/// How often the disk below `path` was told to write its cache down.
std::uint64_t flushes_of(const fs::path& path) {
  struct stat status {};
  REQUIRE(::stat(path.c_str(), &status) == 0);
  std::ifstream counters("/sys/dev/block/" + std::to_string(major(status.st_dev)) + ':' +
                         std::to_string(minor(status.st_dev)) + "/stat");
  std::uint64_t value = 0;
  for (int field = 0; field < 16; ++field) counters >> value;
  REQUIRE(counters);
  return value;
}

/// Leaves bytes above the offset of a new upload.
Task<void> leave_tail(SQLiteStorage& storage, UploadId id) {
  ByteChecksum other(Bytes{});
  Metadata none;
  co_await storage.create_upload(id, 100'000, std::move(none));
  co_await append_test_bytes(storage, id, 2, 0, 5000, {.checksum = &other});
}

Task<void> commit(SQLiteStorage&, UploadWriter& writer, std::size_t& committed) {
  const AppendResult result = co_await writer.commit();
  if (result.offset == 5000) ++committed;
}

}  // namespace

TEST_CASE("A4: many uploads at once are in the disk before they are acknowledged") {
  const std::string kind = GENERATE("ext4", "xfs");
  CAPTURE(kind);
  const LoopFilesystem disk(kind == "ext4" ? 48 : 320, kind);
  if (!disk.mounted()) {
    WARN("not shown: it takes the right to mount a file system");
    return;
  }
  TemporaryFolder folder;  // Of the database, whose own flushes would hide what is counted.
  fs::create_directory(disk.path() / "uploads");
  fs::create_directory_symlink(disk.path() / "uploads", folder / "uploads");
  SqliteStore store(folder.path(), {.min_free_bytes = 0});
  constexpr std::size_t k_uploads = 16;
  std::vector<std::unique_ptr<UploadWriter>> writers;
  for (std::size_t i = 0; i < k_uploads; ++i) {
    store.wait(leave_tail(*store, "u" + std::to_string(i)));
  }
  PlainFile other(disk.path() / "other", O_RDWR | O_CREAT);
  other.sync_filesystem();
  for (std::size_t i = 0; i < k_uploads; ++i) {
    writers.push_back(store.wait(store->open_writer("u" + std::to_string(i))));
    CHECK(store.wait(write_bytes(*store, *writers.back(), 2500)));
    CHECK(store.wait(write_bytes(*store, *writers.back(), 2500)));
  }
  other.write(0, test_bytes(1, 0, 1));
  other.sync();  // Now the file system's log knows all there is to know.

  const std::uint64_t before = flushes_of(disk.path());
  std::size_t committed = 0;
  std::vector<Task<void>> commits;
  for (const auto& writer : writers) commits.push_back(commit(*store, *writer, committed));
  store.wait(when_all(std::move(commits)));
  CHECK(committed == k_uploads);
  // Of the round of the first one, and of the others'.
  CHECK(flushes_of(disk.path()) >= before + 2);
  writers.clear();
}
