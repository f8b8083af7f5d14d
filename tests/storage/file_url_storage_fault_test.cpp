#include <cerrno>
#include <csignal>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <stop_token>
#include <string>
#include <sys/file.h>
#include <system_error>
#include <vector>

#include <tidemark/engine/scope.hpp>
#include <tidemark/engine/sync_wait.hpp>
#include <tidemark/storage/file_url_storage.hpp>
#include <tidemark/storage/storage_error.hpp>

#include "catch.hpp"
#include "child_process.hpp"
#include "program.hpp"
#include "url_store_fixture.hpp"

using namespace tidemark;
using namespace tidemark::test;
namespace fs = std::filesystem;
using Kind = Operation::Kind;

namespace {

constexpr const char* k_old_text = "{\n  \"a\": \"old\"\n}";
constexpr const char* k_new_text = "{\n  \"a\": \"new\"\n}";

}  // namespace

TEST_CASE_METHOD(StoreFixture, "a change is written, synced, renamed and synced, in that order") {
  set("a", "1");
  std::vector<Kind> steps;
  environment.on_submit([&](const Operation& operation, std::uint64_t) {
    if (operation.kind != Kind::stat && operation.kind != Kind::lock) {
      steps.push_back(operation.kind);
    }
    return Fault::none();
  });
  set("a", "2");
  CHECK(steps == std::vector<Kind>{Kind::open, Kind::open, Kind::open, Kind::read, Kind::unlink,
                                   Kind::open, Kind::change_mode, Kind::write, Kind::sync,
                                   Kind::rename, Kind::sync});
}

TEST_CASE_METHOD(StoreFixture, "whichever step fails, the content is the old or the new") {
  set("a", "old");
  const int code = GENERATE(EIO, ENOSPC);
  const bool done = GENERATE(false, true);
  int failures = 0;
  for (std::uint64_t step = 1;; ++step) {
    CAPTURE(step);
    environment.on_submit(nullptr);
    write_contents(path, k_old_text);
    Kind failed = Kind::read;
    environment.on_submit([&](const Operation& operation, std::uint64_t number) {
      if (number != step) return Fault::none();
      failed = operation.kind;
      // An opening that was done and then denied would leave its descriptor open.
      const bool after = done && failed != Kind::open && failed != Kind::lock;
      return after ? Fault::done_but_answer(-code) : Fault::answer(-code);
    });
    const std::error_code error = set_error("a", "new");
    if (environment.count() < step) {
      CHECK_FALSE(error);
      break;
    }
    ++failures;
    CHECK(error == (code == EIO ? Errc::io_error : Errc::no_space));
    environment.on_submit(nullptr);
    const std::string now = contents(path);
    const bool renamed = failed == Kind::rename && done;
    const bool last = failed == Kind::sync && now == k_new_text;
    CHECK(now == (renamed || last ? k_new_text : k_old_text));
    CHECK(names() == k_store_and_lock);
    CHECK(get("a") == (now == k_new_text ? "new" : "old"));
  }
  CHECK(failures >= 12);
  CHECK(contents(path) == k_new_text);
}

TEST_CASE_METHOD(StoreFixture, "after a crash before any step the content is the old or the new") {
  // All that comes after the crash fails, tidying up as well.
  set("a", "old");
  for (std::uint64_t step = 1;; ++step) {
    CAPTURE(step);
    environment.on_submit(nullptr);
    write_contents(path, k_old_text);
    bool renamed = false;
    environment.on_submit([&](const Operation& operation, std::uint64_t number) {
      if (number >= step) return Fault::answer(-EIO);
      renamed = renamed || operation.kind == Kind::rename;
      return Fault::none();
    });
    const std::error_code error = set_error("a", "new");
    const bool finished = environment.count() < step;
    CHECK(!error == finished);
    CHECK(contents(path) == (renamed ? k_new_text : k_old_text));
    environment.on_submit(nullptr);
    set("b", "1");
    CHECK(get("a") == (renamed ? "new" : "old"));
    CHECK(names() == k_store_and_lock);
    if (finished) break;
  }
}

TEST_CASE("a process that is killed before any step leaves the old content or the new") {
  const TemporaryFolder folder;
  const std::string path = (folder / "urls.json").string();
  int leftovers = 0;
  for (int step = 1;; ++step) {
    CAPTURE(step);
    write_contents(path, k_two_urls);
    const ProgramResult result =
        run_program("url_store_changer", {path, "a", "kill", std::to_string(step)});
    CHECK(result.output.empty());
    const std::string now = contents(path);
    const bool is_new = now == "{\n  \"a\": \"new\",\n  \"b\": \"http://host/2\"\n}";
    CHECK((is_new || now == k_two_urls));
    leftovers += fs::exists(path + ".tmp") ? 1 : 0;
    Store store(path);
    store.set("c", "after");
    CHECK(store.get("a") == (is_new ? "new" : "http://host/1"));
    CHECK(store.get("c") == "after");
    CHECK_FALSE(fs::exists(path + ".tmp"));
    if (result.exit_code == 0) {
      CHECK(is_new);
      break;
    }
    CHECK(result.signal == SIGKILL);
  }
  CHECK(leftovers >= 4);
}

TEST_CASE_METHOD(StoreFixture, "short writes and interruptions are no errors") {
  environment.on_submit([](const Operation& operation, std::uint64_t number) {
    const bool moves = operation.kind == Kind::read || operation.kind == Kind::write;
    if (number % 3 == 0) return Fault::answer(-EINTR);
    return moves ? Fault::shorten(1) : Fault::none();
  });
  set("a", "http://host/1");
  set("b", "http://host/2");
  CHECK(contents(path) == k_two_urls);
  CHECK(get("b") == "http://host/2");
}

TEST_CASE("readers share the store with another process, a change waits for it") {
  const int how = GENERATE(LOCK_SH, LOCK_EX);
  const TemporaryFolder folder;
  write_contents(folder / "urls.json", k_two_urls);
  LockHolder holder(folder / "urls.json.lock", how);
  Store store(folder / "urls.json");
  if (how == LOCK_SH) CHECK(store.get("a") == "http://host/1");

  const auto at_third_try = [&](const std::function<void()>& action) {
    store.environment.on_submit([&store, action](const Operation& operation, std::uint64_t) {
      const bool third = operation.kind == Kind::lock && store.environment.count(Kind::lock) == 3;
      if (third) action();
      return Fault::none();
    });
  };
  SECTION("until it lets go") {
    at_third_try([&] { holder.release(); });
    store.set("a", "new");
    CHECK(store.get("a") == "new");
  }
  SECTION("until the time is up") {
    at_third_try([&] { store.environment.seconds_ahead = 31; });
    const std::error_code error =
        how == LOCK_SH ? store.set_error("a", "new") : store.get_error("a");
    CHECK(error == Errc::lock_timeout);
    CHECK(error == std::errc::timed_out);
    CHECK(contents(folder / "urls.json") == k_two_urls);
  }
  SECTION("until it is told to stop") {
    std::stop_source source;
    at_third_try([&] { source.request_stop(); });
    CHECK(error_of(store.executor, with_stop(store.store.set_url("a", "new"),
                                             source.get_token())) == std::errc::operation_canceled);
    CHECK(contents(folder / "urls.json") == k_two_urls);
    holder.release();
    store.set("a", "new");
  }
}

TEST_CASE_METHOD(StoreFixture, "who waits for another task of this process gives up in time too") {
  environment.on_submit([](const Operation& operation, std::uint64_t) {
    return operation.kind == Kind::write ? Fault::hold() : Fault::none();
  });
  const auto set = [](FileURLStorage& urls, std::error_code& result) -> Task<void> {
    try {
      co_await urls.set_url("a", "b");
    } catch (const StorageError& error) {
      result = error.code();
    }
  };
  const auto nothing = []() -> Task<void> { co_return; };
  std::error_code first;
  std::error_code second;
  Scope slow(executor);
  slow.spawn(set(store, first));
  environment.wait_for_held();
  Scope waiting(executor);
  waiting.spawn(set(store, second));
  sync_wait(executor, nothing());
  environment.seconds_ahead = 31;
  sync_wait(executor, waiting.join());
  CHECK(second == Errc::lock_timeout);
  environment.release();
  sync_wait(executor, slow.join());
  CHECK_FALSE(first);
  CHECK(contents(path) == "{\n  \"a\": \"b\"\n}");
}

TEST_CASE_METHOD(StoreFixture, "a change that was told to stop is made whole or not at all") {
  int changed = 0;
  int canceled = 0;
  for (std::uint64_t step = 1;; ++step) {
    CAPTURE(step);
    environment.on_submit(nullptr);
    write_contents(path, "{}");
    std::stop_source source;
    environment.on_submit([&](const Operation&, std::uint64_t number) {
      if (number == step) source.request_stop();
      return Fault::none();
    });
    const std::error_code error =
        error_of(executor, with_stop(store.set_url("a", "x"), source.get_token()));
    const bool finished = environment.count() < step;
    environment.on_submit(nullptr);
    if (error) {
      CHECK(error == std::errc::operation_canceled);
      CHECK(contents(path) == "{}");
      ++canceled;
    } else {
      CHECK(contents(path) == "{\n  \"a\": \"x\"\n}");
      ++changed;
    }
    CHECK(names() == k_store_and_lock);
    if (finished) break;
  }
  CHECK(changed >= 8);
  CHECK(canceled >= 4);
}

TEST_CASE_METHOD(StoreFixture, "what a crash left is not taken for anything else") {
  write_contents(path, k_two_urls);
  write_contents(folder / "urls.json.tmp", "{\"a\": \"never acknowledged\"}");
  CHECK(get("a") == "http://host/1");
  SECTION("a file") {}
  SECTION("a link") {
    fs::remove(folder / "urls.json.tmp");
    write_contents(folder / "precious", "kept");
    fs::create_symlink("precious", folder / "urls.json.tmp");
  }
  set("a", "x");
  CHECK_FALSE(fs::exists(fs::symlink_status(folder / "urls.json.tmp")));
  CHECK(contents(path) == "{\n  \"a\": \"x\",\n  \"b\": \"http://host/2\"\n}");
  if (fs::exists(folder / "precious")) CHECK(contents(folder / "precious") == "kept");
}
