// Begins an upload, goes on with it as after a restart, and reads it back.

#include <chrono>
#include <iostream>
#include <span>
#include <string_view>
#include <utility>

#include <tidemark/engine/engine.hpp>
#include <tidemark/engine/sync_wait.hpp>
#include <tidemark/storage/sqlite_storage.hpp>

using namespace std::chrono_literals;
using namespace tidemark;

namespace {

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text));
}

Task<void> begin(Engine& engine, StorageOptions options) {
  const auto storage = co_await SQLiteStorage::open(engine, std::move(options));
  co_await storage->delete_upload("greeting");  // Of an earlier run, if there was one.

  Metadata metadata{{"filename", "greeting.txt"}};
  co_await storage->create_upload("greeting", 13, std::move(metadata));
  const AppendResult result = co_await storage->append("greeting", 0, bytes_of("Hello, "));
  // No crash and no power cut takes these bytes back from here on.
  std::cout << "stored " << result.offset << " bytes\n";
  co_await storage->close(5s);
}

Task<void> resume(Engine& engine, StorageOptions options) {
  const auto storage = co_await SQLiteStorage::open(engine, std::move(options));
  const auto upload = co_await storage->get_upload("greeting");
  std::cout << "going on at byte " << upload->offset << " of " << *upload->length << '\n';

  const AppendResult result =
      co_await storage->append("greeting", upload->offset, bytes_of("world\n"));
  const auto stored = co_await storage->read_file("greeting", 100);
  const std::string_view text(reinterpret_cast<const char*>(stored.data()), stored.size());
  std::cout << (result.completed ? "complete: " : "incomplete: ") << text;
  co_await storage->close(5s);
}

}  // namespace

int main() {
  Engine engine;
  const StorageOptions options{.db_path = "uploads.db", .upload_dir = "uploads"};
  sync_wait(engine, begin(engine, options));
  sync_wait(engine, resume(engine, options));
}
