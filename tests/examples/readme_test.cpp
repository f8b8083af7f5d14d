// The code that the README shows: here it is compiled and run, and compared line by line.

#include <algorithm>
#include <chrono>
#include <coroutine>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <semaphore>
#include <span>
#include <sstream>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/use_future.hpp>
#include <boost/asio/write.hpp>

#include <tidemark/engine/asio.hpp>
#include <tidemark/engine/scope.hpp>
#include <tidemark/engine/stop.hpp>
#include <tidemark/engine/sync_wait.hpp>
#include <tidemark/storage/sqlite_storage.hpp>

#include "../catch.hpp"
#include "../engine/foreign.hpp"
#include "../storage/sqlite_fixture.hpp"

using namespace std::chrono_literals;

namespace tidemark::test {

class MyStorage : public Storage {
 public:
  explicit MyStorage(Engine& engine) : Storage(engine.executor()) {}

  Task<void> create_upload(UploadId id, std::optional<std::uint64_t> length, Metadata metadata,
                           std::optional<SystemTime> expires_at) override;
  Task<std::optional<Upload>> get_upload(UploadId id) override;
  Task<void> update_offset(UploadId id, std::uint64_t offset) override;
  Task<void> set_length(UploadId id, std::uint64_t length) override;
  Task<void> delete_upload(UploadId id) override;
  Task<void> write_chunk(UploadId id, std::uint64_t offset,
                         std::span<const std::byte> bytes) override;
  Task<void> sync(UploadId id) override;
  Task<std::vector<std::byte>> read_file(UploadId id, std::size_t max_bytes) override;
  std::filesystem::path get_file_path(UploadId id) const override;
  Task<UploadPage> list_uploads(std::optional<UploadId> after, std::size_t limit) override;
  Task<std::vector<UploadId>> get_expired_uploads() override;
  Task<std::size_t> cleanup_expired_uploads() override;
};
static_assert(std::is_constructible_v<MyStorage, Engine&>, "nothing is left abstract");

namespace {

namespace asio = boost::asio;
using MyTask = Foreign;

/// A loop as another library may have: it runs functions, and resumes coroutines of MyTask.
class MyLoop {
 public:
  void post(std::function<void()> function) {
    {
      const std::lock_guard lock(mutex_);
      functions_.push_back(std::move(function));
    }
    posted_.release();
  }

  struct ResumeHere {
    MyLoop& loop;
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> handle) const {
      loop.post([handle] { handle.resume(); });
    }
    void await_resume() const noexcept {}
  };
  ResumeHere resume_here() { return {*this}; }

  void run_one() {
    posted_.acquire();
    std::function<void()> function;
    {
      const std::lock_guard lock(mutex_);
      function = std::move(functions_.front());
      functions_.pop_front();
    }
    function();
  }

 private:
  std::mutex mutex_;
  std::deque<std::function<void()>> functions_;
  std::counting_semaphore<> posted_{0};
};

std::optional<Upload> answered;

void answer(const std::optional<Upload>& upload) {
  answered = upload;
  CHECK(Executor::current() == nullptr);
}

/// Appends what a client sends to an upload that stands at `offset`.
asio::awaitable<AppendResult> receive(asio::ip::tcp::socket& socket, SQLiteStorage& storage,
                                      UploadId id, std::uint64_t offset, std::uint64_t bytes) {
  const WriterOptions options{.offset = offset, .take_over = true};
  const auto writer = co_await async(storage.open_writer(id, options), asio::use_awaitable);
  std::uint64_t uncommitted = 0;
  while (bytes > 0) {
    // A client that sends nothing holds no buffer.
    co_await socket.async_wait(asio::socket_base::wait_read, asio::use_awaitable);
    Buffer buffer = co_await async(storage.buffers().acquire(256 * 1024), asio::use_awaitable);
    const auto wanted = asio::buffer(buffer.data(), std::min(bytes, buffer.size()));
    boost::system::error_code lost;
    buffer.resize(
        co_await asio::async_read(socket, wanted, asio::redirect_error(asio::use_awaitable, lost)));
    bytes -= buffer.size();
    uncommitted += buffer.size();
    const bool taken = co_await async(writer->write(std::move(buffer)), asio::use_awaitable);
    if (!taken) break;  // The writer has ended: close says why, and where the upload stands.
    if (lost) throw boost::system::system_error(lost);
    if (uncommitted < 8 * 1024 * 1024) continue;
    co_await async(writer->commit(), asio::use_awaitable);
    uncommitted = 0;
  }
  co_return co_await async(writer->close(), asio::use_awaitable);
}

asio::awaitable<void> send(asio::ip::tcp::socket& socket, const std::string& text) {
  co_await asio::async_write(socket, asio::buffer(text), asio::use_awaitable);
}

/// An upload of 1,000,000 bytes, and a client that is connected to its server.
struct ConnectedFixture : SqliteFixture {
  ConnectedFixture() {
    wait((*this)->create_upload("film", 1'000'000, Metadata()));
    client.connect(acceptor.local_endpoint());
    acceptor.accept(server);
  }

  asio::io_context io;
  asio::ip::tcp::acceptor acceptor{io, {asio::ip::address_v4::loopback(), 0}};
  asio::ip::tcp::socket client{io};
  asio::ip::tcp::socket server{io};
};

TEST_CASE_METHOD(ConnectedFixture, "the README's Asio code receives an upload") {
  const std::string text(1'000'000, 'x');
  auto sent = asio::co_spawn(io, send(client, text), asio::use_future);
  auto received =
      asio::co_spawn(io, receive(server, **this, "film", 0, text.size()), asio::use_future);
  io.run();
  sent.get();
  CHECK(received.get() == AppendResult{AppendStatus::committed, 1'000'000, true});
  CHECK((contents(folder / "uploads/film") == text));
}

TEST_CASE_METHOD(ConnectedFixture, "the README's Asio code keeps what came before a client went") {
  asio::write(client, asio::buffer(std::string(300'000, 'x')));
  client.close();
  auto received =
      asio::co_spawn(io, receive(server, **this, "film", 0, 1'000'000), asio::use_future);
  io.run();
  CHECK_THROWS_AS(received.get(), boost::system::system_error);
  // The writer, destroyed, closes in the storage; who comes next waits for it.
  const auto writer = wait((*this)->open_writer("film"));
  CHECK(writer->offset() == 300'000);
}

/// Runs on the engine, and hands its answer to the loop.
Task<void> look_up(SQLiteStorage& storage, UploadId id, MyLoop& loop) {
  std::optional<Upload> upload = co_await storage.get_upload(id);
  loop.post([upload = std::move(upload)] { answer(upload); });
}

TEST_CASE_METHOD(SqliteFixture, "the README's Scope answers a loop") {
  const auto storage = &**this;
  MyLoop loop;
  storage->executor();
  wait(storage->create_upload("a1b2", 10, Metadata()));
  answered.reset();

  Scope scope(storage->executor());
  scope.spawn(look_up(*storage, "a1b2", loop));  // In any thread.
  loop.run_one();
  sync_wait(engine, scope.join());  // Before the storage is closed.

  REQUIRE(answered.has_value());
  CHECK(answered->length == 10);
}

MyTask head(SQLiteStorage& storage, UploadId id, MyLoop& loop) {
  const std::optional<Upload> upload = co_await storage.get_upload(id);
  co_await loop.resume_here();  // The storage continued us on its own thread: back to ours.
  answer(upload);
}

TEST_CASE_METHOD(SqliteFixture, "the README's coroutine of another type awaits a storage") {
  wait((*this)->create_upload("a1b2", 10, Metadata()));
  answered.reset();
  MyLoop loop;
  MyTask task = head(**this, "a1b2", loop);
  loop.run_one();
  task.wait();
  REQUIRE(answered.has_value());
  CHECK(answered->offset == 0);
}

Task<int> patch(SQLiteStorage& storage, UploadId id, std::uint64_t offset,
                std::span<const std::byte> body) {
  try {
    const AppendResult result = co_await with_timeout(storage.append(id, offset, body), 90s);
    if (result.status == AppendStatus::canceled) co_return 503;
    co_return result.status == AppendStatus::committed ? 204 : 409;  // Both with result.offset.
  } catch (const StorageError& error) {
    if (error.code() == Errc::not_found) co_return 404;
    if (error.code() == Errc::already_complete) co_return 409;
    if (error.code() == Errc::expired) co_return 410;
    if (error.code() == Errc::length_exceeded) co_return 413;
    if (error.code() == Errc::lock_timeout) co_return 423;
    if (error.code() == Errc::busy || error.code() == Errc::shutting_down) co_return 503;
    if (error.code() == Errc::no_space) co_return 507;
    co_return 500;  // error.what() tells all of it.
  }
}

TEST_CASE_METHOD(SqliteFixture, "the README's errors become answers") {
  wait((*this)->create_upload("film", 4, Metadata()));
  const auto status_of = [&](const char* id, std::uint64_t offset, std::string_view body) {
    return wait(patch(**this, id, offset, as_bytes(body)));
  };
  CHECK(status_of("none", 0, "1234") == 404);
  CHECK(status_of("film", 1, "234") == 409);
  CHECK(status_of("film", 0, "12345") == 413);
  CHECK(status_of("film", 0, "12") == 204);
  CHECK(status_of("film", 2, "34") == 204);
  CHECK(status_of("film", 4, "") == 409);
}

/// Lines without what they begin and end with of blanks; a block may be indented elsewhere.
std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) {
    const std::size_t begin = line.find_first_not_of(' ');
    lines.push_back(begin == std::string::npos ? "" : line.substr(begin));
  }
  return lines;
}

/// The blocks of C++ in the README, in order.
std::vector<std::string> readme_blocks(const std::filesystem::path& root) {
  const std::string readme = contents(root / "README.md");
  std::vector<std::string> blocks;
  constexpr std::string_view k_begin = "\n```cpp\n";
  for (std::size_t at = readme.find(k_begin); at != std::string::npos;
       at = readme.find(k_begin, at)) {
    at += k_begin.size();
    blocks.push_back(readme.substr(at, readme.find("```\n", at) - at));
  }
  return blocks;
}

TEST_CASE("the README's code is the quickstart, then what stands in this file") {
  const std::filesystem::path here = __FILE__;
  const std::filesystem::path root = here.parent_path().parent_path().parent_path();
  const std::vector<std::string> blocks = readme_blocks(root);
  REQUIRE(blocks.size() == 7);
  CHECK(blocks.front() == contents(root / "examples/quickstart.cpp"));
  const std::vector<std::string> compiled = lines_of(contents(here));
  for (std::size_t i = 1; i < blocks.size(); ++i) {
    INFO(blocks[i]);
    const std::vector<std::string> shown = lines_of(blocks[i]);
    CHECK(!shown.empty());
    CHECK(std::ranges::search(compiled, shown).begin() != compiled.end());
  }
}

}  // namespace
}  // namespace tidemark::test
