// Rows and pages that no program of ours writes: a list of them ends, and each says what it is.

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "sqlite_protocol.hpp"

using namespace tidemark;
using namespace tidemark::test;
using namespace std::chrono_literals;

namespace {

/// The ids of all pages of `limit` uploads. Throws what a page throws.
template <class Store>
std::vector<UploadId> list_all(Store& store, std::size_t limit) {
  constexpr std::size_t k_most_pages = 100;
  std::vector<UploadId> ids;
  UploadPage page;
  for (std::size_t pages = 0; pages == 0 || (page.next && pages < k_most_pages); ++pages) {
    page = store.wait(store->list_uploads(page.next, limit));
    for (const Upload& upload : page.uploads) ids.push_back(upload.id);
  }
  CHECK_FALSE(page.next.has_value());
  return ids;
}

}  // namespace

TEST_CASE_METHOD(ProtocolFixture, "an id that is a blob or holds a zero is no upload's") {
  create("a", 10);
  create("z", 10);
  for (const char* const id : {"X'62'", "CAST(X'620063' AS TEXT)", "CAST(X'62002F' AS TEXT)"}) {
    foreign.exec("INSERT INTO uploads (upload_id, upload_length) VALUES (" + std::string(id) +
                 ", 10)");
  }
  for (const std::size_t limit : std::vector<std::size_t>{1, 2, 100}) {
    CHECK(list_all(*this, limit) == std::vector<UploadId>{"a", "z"});
  }
  wait((**this).sweep({.min_age = 0s}));
  CHECK(foreign.ask_number("SELECT count(*) FROM uploads") == 5);
}

TEST_CASE_METHOD(ProtocolFixture, "a length or an offset that is no integer is corrupt") {
  create("a", 10);
  const char* const change = GENERATE("\"offset\" = NULL", "\"offset\" = 'x'", "\"offset\" = 1.5",
                                      "upload_length = 'many'", "upload_length = X'31'");
  CAPTURE(change);
  foreign.exec("UPDATE uploads SET " + std::string(change));
  CHECK(error_of((**this).get_upload("a")) == Errc::corrupt);
  CHECK(append_error("a", 0, 1) == Errc::corrupt);
  CHECK(list_all(*this, 10).empty());
  CHECK(wait((**this).sweep({.min_age = 0s})).corrupt == std::vector<UploadId>{"a"});
}

TEST_CASE_METHOD(SqliteFolder, "a list from a damaged index is corrupt and ends") {
  {
    SqliteStore store(folder.path());
    for (const char* const id : {"first", "second", "third"}) {
      store.wait(store->create_upload(id, 10, Metadata()));
    }
  }
  // An index entry is the id and its row's number: of "second", which has another place then.
  std::string bytes = contents(folder / "uploads.db");
  const std::size_t at = bytes.find("second\x02");
  REQUIRE(at != std::string::npos);
  bytes[at] = 'z';
  write_contents(folder / "uploads.db", bytes);

  SqliteStore store(folder.path());
  CHECK(error_of(store.executor, store->list_uploads(std::nullopt, 10)) == Errc::corrupt);
  CHECK(error_of(store.executor, store->sweep({.min_age = 0s})) == Errc::corrupt);
  CHECK(error_of(store.executor, store->backup(folder / "backup.db")) == std::error_code());
  CHECK(store.wait(store->get_upload("first")).has_value());
}

TEST_CASE_METHOD(SqliteFolder, "a page that was wiped is an error, and the storage goes on") {
  constexpr std::size_t k_page_bytes = 4096;
  {
    SqliteStore store(folder.path());
    for (const char* const id : {"first", "second"}) {
      store.wait(store->create_upload(id, 10, Metadata()));
    }
  }
  const std::string sound = contents(folder / "uploads.db");
  for (std::size_t page = 1; page < sound.size() / k_page_bytes; ++page) {
    for (const std::size_t from : std::vector<std::size_t>{8, 100, 3500, 3900, 4000, 4060}) {
      CAPTURE(page, from);
      std::string bytes = sound;
      bytes.replace(page * k_page_bytes + from, k_page_bytes - from, k_page_bytes - from, '\0');
      write_contents(folder / "uploads.db", bytes);
      try {
        SqliteStore store(folder.path());
        for (int i = 0; i < 2; ++i) {
          static_cast<void>(error_of(store.executor, store->get_upload("first")));
          static_cast<void>(error_of(store.executor, store->list_uploads(std::nullopt, 10)));
        }
      } catch (const StorageError& error) {
        CHECK(error.code() == Errc::corrupt);
      }
    }
  }
}
