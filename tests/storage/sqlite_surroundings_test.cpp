// A SQLiteStorage whose surroundings go wrong: its folder, its file system, its descriptors.

#include <string>
#include <sys/mount.h>
#include <sys/resource.h>
#include <vector>

#include "loop_filesystem.hpp"
#include "sqlite_protocol.hpp"

using namespace tidemark;
using namespace tidemark::test;
using namespace std::chrono_literals;
namespace fs = std::filesystem;
using Kind = Operation::Kind;

namespace {

/// Fewer descriptors for this process, while it lives.
class DescriptorLimit {
 public:
  explicit DescriptorLimit(rlim_t limit) {
    ::getrlimit(RLIMIT_NOFILE, &before_);
    rlimit lower = before_;
    lower.rlim_cur = limit;
    REQUIRE(::setrlimit(RLIMIT_NOFILE, &lower) == 0);
  }
  ~DescriptorLimit() { ::setrlimit(RLIMIT_NOFILE, &before_); }

 private:
  rlimit before_{};
};

std::vector<UploadId> make_ids(std::size_t count) {
  std::vector<UploadId> ids;
  for (std::size_t i = 0; i < count; ++i) ids.emplace_back("u" + std::to_string(i));
  return ids;
}

/// Opens a writer on each and lets all of them write, commit and close together; gives what failed.
Task<std::vector<std::string>> write_together(SQLiteStorage& storage, std::vector<UploadId> ids) {
  std::vector<std::unique_ptr<UploadWriter>> writers;
  std::vector<std::string> errors;
  for (const UploadId& id : ids) {
    try {
      writers.push_back(co_await storage.open_writer(id));
    } catch (const StorageError& error) {
      errors.emplace_back(error.what());
      if (error.code() != Errc::io_error) throw;
    }
  }
  for (const std::unique_ptr<UploadWriter>& writer : writers) {
    co_await write_bytes(storage, *writer, 100);
    co_await writer->close();
  }
  co_return errors;
}

}  // namespace

TEST_CASE_METHOD(ProtocolFixture,
                 "without free descriptors writers are refused, and others go on") {
  constexpr std::size_t k_uploads = 100;
  const std::vector<UploadId> ids = make_ids(k_uploads);
  for (const UploadId& id : ids) create(id, 200);
  std::vector<std::string> errors;
  // UBSan asks through a pipe whether an object is of its type, unless it has seen one: so that it
  // can, here is the error while there are descriptors.
  environment.on_submit([](const Operation& operation, std::uint64_t) {
    return operation.kind == Kind::open ? Fault::answer(-EMFILE) : Fault::none();
  });
  CHECK(wait(write_together(**this, {"u0"})).size() == 1);
  environment.on_submit(nullptr);
  {
    const DescriptorLimit limit(64);
    errors = wait(write_together(**this, ids));
    CHECK(wait((**this).list_uploads(std::nullopt, k_uploads)).uploads.size() == k_uploads);
  }
  REQUIRE_FALSE(errors.empty());
  CHECK(errors.size() < k_uploads);
  for (const std::string& error : errors) {
    CHECK(error.find("Too many open files") != std::string::npos);
  }
  std::size_t written = 0;
  for (const UploadId& id : ids) {
    const std::uint64_t offset = wait((**this).get_upload(id))->offset;
    written += offset / 100;
    check_and_finish(id, offset, 200);
  }
  CHECK(written + errors.size() == k_uploads);
  check_nothing_left();
}

TEST_CASE_METHOD(ProtocolFixture, "an upload folder that was removed is an error, and rows stay") {
  create_at("a", 100, 1000);
  fs::rename(options().upload_dir, folder / "moved");
  // The folder that was opened is written still, whatever its name.
  CHECK(append("a", 100, 100) == committed(200));
  CHECK(error_of((**this).sweep({.min_age = 0s})) == Errc::corrupt);

  fs::remove_all(folder / "moved");
  CHECK(append_error("a", 200, 100) == Errc::corrupt);
  CHECK(error_of((**this).create_upload("b", 10, Metadata())) == Errc::io_error);
  CHECK(error_of((**this).sweep({.min_age = 0s})) == Errc::corrupt);
  CHECK(wait((**this).get_upload("a"))->offset == 200);
  CHECK_FALSE(wait((**this).get_upload("b")));
  wait((**this).delete_upload("a"));
  CHECK_FALSE(wait((**this).get_upload("a")));
}

TEST_CASE_METHOD(SqliteFolder, "a file system that is unmounted while it is used loses nothing") {
  const LoopFilesystem disk(48);
  if (!disk.mounted()) {
    WARN("no file system can be mounted here");
    return;
  }
  {
    ProtocolStore store(disk.path());
    store.create_at("a", 5000, 10'000);
    REQUIRE(::umount2(disk.path().c_str(), MNT_DETACH) == 0);
    CHECK_FALSE(fs::exists(disk.path() / "uploads.db"));
    // The folder is still there for whoever has it open; the database is gone from its path.
    const std::error_code error = store.append_error("a", 5000, 100);
    CHECK(error == Errc::corrupt);
  }
  REQUIRE(disk.mount_again());
  ProtocolStore store(disk.path());
  store.check_and_finish("a", 5000, 10'000);
}
