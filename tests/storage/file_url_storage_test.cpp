#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>
#include <sys/stat.h>
#include <thread>
#include <utility>
#include <vector>

#include <tidemark/engine/sync_wait.hpp>
#include <tidemark/engine/when_all.hpp>
#include <tidemark/storage/file_url_storage.hpp>
#include <tidemark/storage/storage_error.hpp>

#include "catch.hpp"
#include "program.hpp"
#include "sanitizers.hpp"
#include "url_store_fixture.hpp"

using namespace tidemark;
using namespace tidemark::test;
using Catch::Matchers::Contains;
namespace fs = std::filesystem;

namespace {

mode_t mode_of(const fs::path& path) {
  return static_cast<mode_t>(fs::status(path).permissions()) & 07777;
}

/// Runs a Python program with arguments; false when there is no Python or it failed.
bool run_python(const std::string& program, const std::vector<std::string>& arguments) {
  std::string command = "python3 -c '" + program + "'";
  for (const std::string& argument : arguments) command += " '" + argument + "'";
  return std::system(command.c_str()) == 0;
}

}  // namespace

TEST_CASE_METHOD(StoreFixture, "a URL is kept, replaced and removed") {
  CHECK_FALSE(get("a"));
  CHECK_FALSE(fs::exists(path));
  set("a", "http://host/1");
  CHECK(get("a") == "http://host/1");
  CHECK_FALSE(get("b"));
  set("b", "http://host/2");
  set("a", "http://host/3");
  CHECK(get("a") == "http://host/3");
  CHECK(get("b") == "http://host/2");
  remove("a");
  CHECK_FALSE(get("a"));
  remove("a");
  CHECK(get("b") == "http://host/2");
  remove("b");
  CHECK(contents(path) == "{}");
  set("", "");
  CHECK(get("") == "");
  CHECK(names() == k_store_and_lock);
}

TEST_CASE_METHOD(StoreFixture, "removing from no store makes none") {
  remove("a");
  CHECK_FALSE(fs::exists(path));
}

TEST_CASE_METHOD(StoreFixture, "the file is what json.dump with an indent of two writes") {
  set("a", "http://host/1");
  set("b", "http://host/2");
  CHECK(contents(path) == k_two_urls);
  set("a", "x");
  CHECK(contents(path) == "{\n  \"a\": \"x\",\n  \"b\": \"http://host/2\"\n}");
  remove("a");
  CHECK(contents(path) == "{\n  \"b\": \"http://host/2\"\n}");
  set("\"\\/\n\x01\x7f", "\xc3\xa9\xf0\x9f\x8c\x8a\xed\xa0\x80");
  CHECK(contents(path) ==
        "{\n  \"b\": \"http://host/2\",\n  \"\\\"\\\\/\\n\\u0001\\u007f\": "
        "\"\\u00e9\\ud83c\\udf0a\\ud800\"\n}");
  CHECK(get("\"\\/\n\x01\x7f") == "\xc3\xa9\xf0\x9f\x8c\x8a\xed\xa0\x80");
}

TEST_CASE_METHOD(StoreFixture, "of one fingerprint in several spellings the last counts") {
  write_contents(path, R"({"\ud80a\u00e9": "1", "b": "2", "\uD80a\u00E9": "3"})");
  CHECK(get("\xed\xa0\x8a\xc3\xa9") == "3");
  set("b", "x");
  CHECK(contents(path) == "{\n  \"\\ud80a\\u00e9\": \"3\",\n  \"b\": \"x\"\n}");
}

TEST_CASE_METHOD(StoreFixture, "Python reads what is written, and writes the same bytes") {
  if (!run_python("import json", {})) {
    WARN("not shown: there is no Python");
    return;
  }
  set("plain", "http://host/1");
  set("\xc3\xa9 \"\\\x7f\x01", "\xf0\x9f\x8c\x8a\xed\xb0\x80");
  set(std::string("nul\0", 4), "");
  const std::string ours = contents(path);
  const std::string copy = (folder / "copy.json").string();
  const std::string rewrite =
      "import json, sys\n"
      "data = json.load(open(sys.argv[1]))\n"
      "json.dump(data, open(sys.argv[2], \"w\"), indent=2)\n";
  REQUIRE(run_python(rewrite, {path.string(), copy}));
  CHECK(contents(copy) == ours);
  write_contents(path, "[]");
  REQUIRE(
      run_python("import json, sys\n"
                 "data = {chr(c): chr(c) for c in range(0x3000)}\n"
                 "json.dump(data, open(sys.argv[1], \"w\"), indent=2)\n",
                 {path.string()}));
  const std::string theirs = contents(path);
  set("a", "a");
  CHECK(contents(path) == theirs);
}

TEST_CASE_METHOD(StoreFixture, "a Python process and this one change a store at once") {
  if (!run_python("import fcntl", {})) {
    WARN("not shown: there is no Python");
    return;
  }
  constexpr int k_changes = 300;
  const std::string change_by_rule =
      "import fcntl, json, os, sys, tempfile\n"
      "path = sys.argv[1]\n"
      "for i in range(int(sys.argv[2])):\n"
      "  with open(path + \".lock\", \"w\") as lock:\n"
      "    fcntl.flock(lock, fcntl.LOCK_EX)\n"
      "    urls = json.load(open(path)) if os.path.exists(path) else {}\n"
      "    urls[f\"python-{i}\"] = str(i)\n"
      "    fd, name = tempfile.mkstemp(dir=os.path.dirname(path), suffix=\".tmp\")\n"
      "    with os.fdopen(fd, \"w\") as file:\n"
      "      json.dump(urls, file, indent=2)\n"
      "    os.replace(name, path)\n";
  bool ran = false;
  std::thread python([&] {
    ran = run_python(change_by_rule, {path.string(), std::to_string(k_changes)});
  });
  for (int i = 0; i < k_changes; ++i) set("ours-" + std::to_string(i), std::to_string(i));
  python.join();
  CHECK(ran);
  int lost = 0;
  for (int i = 0; i < k_changes; ++i) {
    const std::string number = std::to_string(i);
    if (get("python-" + number) != number || get("ours-" + number) != number) ++lost;
  }
  CHECK(lost == 0);
  CHECK(names() == k_store_and_lock);
}

TEST_CASE("processes that change a store at once lose nothing") {
  constexpr bool k_slow = k_thread_sanitizer || k_address_sanitizer;
  const int changes = k_slow ? 200 : 1500;
  const TemporaryFolder folder;
  const std::string path = (folder / "urls.json").string();
  ProgramResult one;
  ProgramResult two;
  const auto run = [&](const char* name) {
    return run_program("url_store_changer", {path, name, std::to_string(changes)});
  };
  std::thread other([&] { one = run("one"); });
  two = run("two");
  other.join();
  CHECK(one.output.empty());
  CHECK(one.exit_code == 0);
  CHECK(two.output.empty());
  CHECK(two.exit_code == 0);
  Store store(path);
  for (int i = changes - 10; i < changes; ++i) {
    for (const std::string name : {"one-", "two-"}) {
      const std::optional<std::string> url = store.get(name + std::to_string(i % 10));
      CHECK(url == (i % 7 == 0 ? std::nullopt : std::optional(std::to_string(i))));
    }
  }
}

TEST_CASE_METHOD(StoreFixture, "tasks of one process change a store at once") {
  FileURLStorage second(engine, path);
  std::vector<Task<void>> changes;
  for (int i = 0; i < 100; ++i) {
    FileURLStorage& one = i % 2 == 0 ? store : second;
    changes.push_back(one.set_url(std::to_string(i), "url"));
  }
  const auto all = [](std::vector<Task<void>> tasks) -> Task<void> {
    co_await when_all(std::move(tasks));
  };
  sync_wait(executor, all(std::move(changes)));
  int lost = 0;
  for (int i = 0; i < 100; ++i) lost += get(std::to_string(i)) ? 0 : 1;
  CHECK(lost == 0);
}

TEST_CASE_METHOD(StoreFixture, "who changes a store without a pause leaves others their turn") {
  constexpr int k_wanted = 100;
  constexpr int k_most = 4 * k_wanted;
  FileURLStorage other(engine, path);
  bool served = false;
  int changes = 0;
  const auto hurry = [](FileURLStorage& urls, const bool& done, int& count) -> Task<void> {
    for (; !done && count < k_most; ++count) co_await urls.set_url("a", std::to_string(count));
  };
  const auto wait = [](FileURLStorage& urls, bool& done) -> Task<void> {
    for (int i = 1; i <= k_wanted; ++i) co_await urls.set_url("b", std::to_string(i));
    done = true;
  };
  const auto both = [](Task<void> a, Task<void> b) -> Task<void> {
    co_await when_all(std::move(a), std::move(b));
  };
  sync_wait(executor, both(hurry(store, served, changes), wait(other, served)));
  CHECK(changes < k_most);
  CHECK(get("b") == std::to_string(k_wanted));
}

TEST_CASE_METHOD(StoreFixture, "a torn or foreign file is an error and stays as it is") {
  const char* const text =
      GENERATE("", " ", "null", "[]", "\"text\"", "{", "{\"a\": \"b\"", "{\"a\": \"b\"} x",
               "{\"a\": 1}", "{\"a\": null}", "{\"a\": {\"b\": \"c\"}}", "{\"a\": [\"b\"]}",
               "{'a': 'b'}", "{\"a\": \"\xff\"}", "{\"a\": \"b\",}", "{\"a\": NaN}");
  CAPTURE(text);
  write_contents(path, text);
  CHECK(get_error("a") == Errc::corrupt);
  CHECK(set_error("a", "x") == Errc::corrupt);
  CHECK(remove_error("a") == Errc::corrupt);
  CHECK(contents(path) == text);
  CHECK(names() == k_store_and_lock);
  CHECK_THAT(message("a"), Contains("get_url") && Contains(path.string()));
}

TEST_CASE_METHOD(StoreFixture, "a file that was torn at any byte is an error") {
  for (std::size_t size = 0; size < k_two_urls.size(); ++size) {
    CAPTURE(size);
    write_contents(path, k_two_urls.substr(0, size));
    CHECK(set_error("a", "x") == Errc::corrupt);
    CHECK(contents(path) == k_two_urls.substr(0, size));
  }
  write_contents(path, k_two_urls);
  CHECK(get("b") == "http://host/2");
}

TEST_CASE_METHOD(StoreFixture, "what is no file at the path is refused") {
  const TemporaryFolder outside;
  write_contents(outside / "real.json", k_two_urls);
  SECTION("a symbolic link") {
    fs::create_symlink(outside / "real.json", path);
  }
  SECTION("a symbolic link to nothing") {
    fs::create_symlink(outside / "none", path);
  }
  SECTION("a folder") {
    fs::create_directory(path);
  }
  SECTION("a pipe") {
    REQUIRE(::mkfifo(path.c_str(), 0666) == 0);
  }
  SECTION("a lock that is a link") {
    fs::create_symlink(outside / "lock", folder / "urls.json.lock");
  }
  const fs::file_type before = fs::symlink_status(path).type();
  CHECK(get_error("a") == Errc::io_error);
  CHECK(set_error("a", "x") == Errc::io_error);
  CHECK_THAT(message("a"), Contains(path.string()));
  CHECK(fs::symlink_status(path).type() == before);
  CHECK(contents(outside / "real.json") == k_two_urls);
  CHECK_FALSE(fs::exists(outside / "lock"));
}

TEST_CASE("a path must name a file in a folder") {
  const TemporaryFolder folder;
  EngineFixture fixture;
  for (const char* path : {"", ".", "..", "/", "folder/", "folder/.."}) {
    CAPTURE(path);
    CHECK_THROWS_AS(FileURLStorage(fixture.engine, path), StorageError);
  }
  CHECK(FileURLStorage(fixture.engine).path() == fs::current_path() / ".tus_urls.json");
  FileURLStorage store(fixture.engine, folder / "none/urls.json");
  CHECK(error_of(fixture.executor, store.get_url("a")) == Errc::io_error);
  CHECK(error_of(fixture.executor, store.set_url("a", "x")) == Errc::io_error);
  fs::create_directory(folder / "real");
  fs::create_directory_symlink("real", folder / "link");
  FileURLStorage linked(fixture.engine, folder / "link/urls.json");
  CHECK_FALSE(error_of(fixture.executor, linked.set_url("a", "x")));
  CHECK(contents(folder / "real/urls.json") == "{\n  \"a\": \"x\"\n}");
}

TEST_CASE_METHOD(StoreFixture, "text that is not UTF-8 is refused") {
  CHECK(set_error("\xff", "x") == Errc::invalid_argument);
  CHECK(set_error("a", "\xc3") == Errc::invalid_argument);
  CHECK(get_error("\xff") == Errc::invalid_argument);
  CHECK(remove_error("\xff") == Errc::invalid_argument);
  CHECK(names().empty());
}

TEST_CASE_METHOD(StoreFixture, "the file's mode is kept") {
  const mode_t umask = ::umask(027);
  set("a", "1");
  CHECK(mode_of(path) == 0640);
  for (const mode_t mode : {0600U, 0666U, 0777U, 0444U}) {
    REQUIRE(::chmod(path.c_str(), mode) == 0);
    set("a", "2");
    CHECK(mode_of(path) == mode);
    remove("a");
    CHECK(mode_of(path) == mode);
  }
  ::umask(umask);
}

TEST_CASE_METHOD(StoreFixture, "a file takes no more than its bound") {
  const std::string frame = "{\n  \"a\": \"\"\n}";
  const std::string largest(FileURLStorage::k_max_bytes - frame.size(), 'u');
  set("a", largest.substr(1));
  set("a", largest);
  CHECK(fs::file_size(path) == FileURLStorage::k_max_bytes);
  CHECK(get("a") == largest);
  CHECK(set_error("a", largest + "u") == Errc::quota_exceeded);
  CHECK(set_error("b", "") == Errc::quota_exceeded);
  CHECK(get("a") == largest);
  write_contents(path, frame.substr(0, 10) + largest + "u" + frame.substr(10));
  CHECK(get_error("a") == Errc::quota_exceeded);
  CHECK(remove_error("a") == Errc::quota_exceeded);
  CHECK(fs::file_size(path) == FileURLStorage::k_max_bytes + 1);
  CHECK(names() == k_store_and_lock);
}
