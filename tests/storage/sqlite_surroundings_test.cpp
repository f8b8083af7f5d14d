// A SQLiteStorage whose surroundings go wrong: its folder, its file system, its descriptors.

#include <fstream>
#include <new>
#include <string>
#include <sys/mount.h>
#include <sys/resource.h>
#include <unistd.h>
#include <vector>

#include <tidemark/storage/file_url_storage.hpp>

#include "loop_filesystem.hpp"
#include "sanitizers.hpp"
#include "sqlite_protocol.hpp"

using namespace tidemark;
using namespace tidemark::test;
using namespace std::chrono_literals;
namespace fs = std::filesystem;

namespace {

/// Less for this process, while it lives.
class ResourceLimit {
 public:
  ResourceLimit(__rlimit_resource resource, rlim_t limit) : resource_(resource) {
    ::getrlimit(resource_, &before_);
    rlimit lower = before_;
    lower.rlim_cur = limit;
    REQUIRE(::setrlimit(resource_, &lower) == 0);
  }
  ~ResourceLimit() { ::setrlimit(resource_, &before_); }
  ResourceLimit(const ResourceLimit&) = delete;
  ResourceLimit& operator=(const ResourceLimit&) = delete;

 private:
  const __rlimit_resource resource_;
  rlimit before_{};
};

/// What RLIMIT_AS counts, in bytes.
std::size_t address_space() {
  std::size_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  return pages * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
}

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
  if (k_address_sanitizer) {
    WARN("not shown: UBSan, which comes with it, asks through a pipe of what type an object is");
    return;
  }
  constexpr std::size_t k_uploads = 100;
  const std::vector<UploadId> ids = make_ids(k_uploads);
  for (const UploadId& id : ids) create(id, 200);
  std::vector<std::string> errors;
  {
    const ResourceLimit limit(RLIMIT_NOFILE, 64);
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

TEST_CASE_METHOD(ProtocolFixture, "without a free descriptor nothing is made or opened") {
  if (k_address_sanitizer) {
    WARN("not shown: UBSan, which comes with it, asks through a pipe of what type an object is");
    return;
  }
  create_at("a", 100, 1000);
  FileURLStorage urls(engine, folder.path() / ".tus_urls.json");
  wait(urls.set_url("a", "http://host/a"));
  {
    const ResourceLimit limit(RLIMIT_NOFILE, 64);
    std::vector<int> taken;
    while (taken.empty() || taken.back() >= 0) taken.push_back(::dup(0));
    CHECK(error_of((**this).create_upload("b", 10, Metadata())) == Errc::io_error);
    CHECK(error_of(SQLiteStorage::open(engine, options())) == Errc::io_error);
    CHECK(error_of(urls.set_url("a", "http://host/b")) == Errc::io_error);
    CHECK(wait((**this).get_upload("a"))->offset == 100);
    for (const int each : taken) {
      if (each >= 0) ::close(each);
    }
  }
  CHECK_FALSE(wait((**this).get_upload("b")));
  create("b", 10);
  CHECK(wait(urls.get_url("a")) == "http://host/a");
  wait(urls.set_url("a", "http://host/b"));
  CHECK(wait(urls.get_url("a")) == "http://host/b");
  check_and_finish("a", 100, 1000);
}

TEST_CASE_METHOD(ProtocolFixture, "without memory what takes much is refused, and others go on") {
  if (k_address_sanitizer || k_thread_sanitizer) {
    WARN("not shown: sanitizers take all addresses");
    return;
  }
  constexpr std::size_t k_mib = std::size_t{1} << 20;
  create("large", 64 * k_mib);
  fs::resize_file(path("large"), 64 * k_mib);
  foreign.move_to("large", 64 * k_mib);
  create_at("a", 100, 1000);
  {
    const ResourceLimit limit(RLIMIT_AS, address_space() + 16 * k_mib);
    CHECK_THROWS_AS(wait((**this).read_file("large", 64 * k_mib)), std::bad_alloc);
    CHECK(append("a", 100, 100) == committed(200));
    CHECK(wait((**this).read_file("large", k_mib)).size() == k_mib);
  }
  CHECK(wait((**this).read_file("large", 64 * k_mib)).size() == 64 * k_mib);
  check_and_finish("a", 200, 1000);
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
