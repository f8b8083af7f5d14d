// A process with writers on a SQLiteStorage, to be killed at any moment.
//
//   crash_writer FOLDER ROUND GENERATION WRITERS full|none
//
// It says in standard output what it does, in records (checker.hpp), each one write(2) to a pipe:
// an intent before an operation whose outcome could be unknown, an acknowledgement after its
// co_await has returned. It begins with `ready`, and goes on until its standard input ends; then it
// closes the storage. An operation that the disk has no room for is said as `full`; another error
// that no other writer explains is said as `error TEXT`, and ends it.
//
// GENERATION is never used twice on one FOLDER, ROUND is that of all processes that run at once.
// The uploads s<ROUND>-<K> are made and written by all; none removes them in the same round, so
// that no id is ever used again. All others may be written and removed by whoever finds them.

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>
#include <system_error>
#include <unistd.h>
#include <utility>
#include <vector>

#include <tidemark/engine/scope.hpp>
#include <tidemark/engine/sync_wait.hpp>
#include <tidemark/storage/sqlite_storage.hpp>

#include "../driver_fixture.hpp"
#include "../sim/random.hpp"
#include "../test_bytes.hpp"

using namespace tidemark;
using namespace tidemark::test;

namespace {

constexpr std::uint64_t k_max_bytes = 600'000;  // Of an upload.
constexpr std::size_t k_uploads = 30;           // With more of them nobody makes another.
constexpr int k_shared = 4;

struct Process {
  SQLiteStorage& storage;
  const std::filesystem::path released;
  const std::string round;
  const std::uint64_t generation;
  const bool durable;
  sim::Random random{generation};
  std::vector<std::string> ids = {};  // Of uploads that may be there.
  std::uint64_t names = 0;
  std::uint64_t sessions = 0;
  std::atomic<bool> is_stopping = false;
};

/// One write, so that the record is in the pipe whole or not at all.
void say(const std::string& record) {
  const std::string line = record + '\n';
  if (::write(STDOUT_FILENO, line.data(), line.size()) != static_cast<ssize_t>(line.size())) {
    std::_Exit(2);  // Nobody listens.
  }
}

std::string text_of(std::optional<std::uint64_t> length) {
  return length ? std::to_string(*length) : "-1";
}

class Writer {
 public:
  explicit Writer(Process& process) : process_(process), storage_(process.storage) {}

  /// Does one thing with one upload.
  Task<void> step();
  Task<void> create(std::string id, std::optional<std::uint64_t> length);

 private:
  sim::Random& random() { return process_.random; }
  std::string new_name();
  std::uint64_t new_seed() { return (process_.generation << 24) + ++process_.sessions; }
  /// Not those that others of this round could make anew.
  bool may_remove(const std::string& id) const { return !id.starts_with(process_.round); }
  std::uint64_t some_size(std::uint64_t offset);
  std::uint64_t size_at(const Upload& upload, std::uint64_t offset);

  Task<void> grow(const Upload& upload);
  Task<void> append(const Upload& upload);
  Task<void> write(const Upload& upload);
  Task<bool> write_piece(UploadWriter& writer, std::uint64_t seed, std::uint64_t size);
  Task<void> set_length(const Upload& upload);
  Task<void> finish(const Upload& upload);
  Task<void> concatenate(const Upload& first);
  Task<void> remove(std::string id);
  Task<void> release(std::string id);

  Process& process_;
  SQLiteStorage& storage_;
};

std::string Writer::new_name() {
  return 'u' + std::to_string(process_.generation) + '-' + std::to_string(++process_.names);
}

std::uint64_t Writer::some_size(std::uint64_t offset) {
  switch (random().below(8)) {
    case 0:
      return random().between(1, 16);
    case 1:
      return 4096 * random().between(1, 16);
    case 2:
      return 4096 * random().between(1, 3) + random().below(3) - 1;
    case 3:
      return 65'536 * random().between(1, 4);
    case 4:
      return random().between(1, 300'000);
    case 5:  // Up to a block's end, so that what follows is aligned.
      return 4096 * random().between(1, 8) - offset % 4096;
    default:
      return random().between(1, 20'000);
  }
}

std::uint64_t Writer::size_at(const Upload& upload, std::uint64_t offset) {
  const std::uint64_t end = upload.length.value_or(k_max_bytes);
  return std::min(some_size(offset), end - std::min(end, offset));
}

Task<void> Writer::create(std::string id, std::optional<std::uint64_t> length) {
  say("creating " + id + ' ' + text_of(length));
  Metadata metadata{{"filename", id}};
  try {
    co_await storage_.create_upload(id, length, std::move(metadata));
    say("created " + id + ' ' + text_of(length));
  } catch (const StorageError& error) {
    if (error.code() != Errc::already_exists || may_remove(id)) throw;
  }
  process_.ids.push_back(std::move(id));
}

Task<void> Writer::append(const Upload& upload) {
  const std::string id(upload.id.view());
  const std::uint64_t from = upload.offset;
  const std::uint64_t seed = new_seed();
  const auto bytes = test_bytes(seed, from, size_at(upload, from));
  AppendOptions options;
  if (process_.durable && random().once_in(10)) options.durability = Durability::ordered;
  say("trying " + id + ' ' + std::to_string(seed));
  const AppendResult result = co_await storage_.append(upload.id, from, bytes, options);
  if (result.status != AppendStatus::committed) co_return;
  if (result.offset != from + bytes.size()) throw std::logic_error("not up to the end: " + id);
  if (options.durability && !result.completed) co_return;  // Not promised yet.
  say("committed " + id + ' ' + std::to_string(from) + ' ' + std::to_string(result.offset) + ' ' +
      std::to_string(seed) + (result.completed ? " complete" : " open"));
}

Task<bool> Writer::write_piece(UploadWriter& writer, std::uint64_t seed, std::uint64_t size) {
  if (random().once_in(2)) {
    Buffer buffer = co_await storage_.buffers().acquire(size);
    buffer.resize(size);
    fill_test_bytes(buffer.bytes(), seed, writer.offset());
    co_return co_await writer.write(std::move(buffer));
  }
  const auto bytes = test_bytes(seed, writer.offset(), size);
  co_return co_await writer.write(bytes);
}

Task<void> Writer::write(const Upload& upload) {
  const std::string id(upload.id.view());
  const std::uint64_t seed = new_seed();
  const WriterOptions options{.take_over = random().once_in(2)};
  say("trying " + id + ' ' + std::to_string(seed));
  const std::unique_ptr<UploadWriter> writer = co_await storage_.open_writer(upload.id, options);
  std::uint64_t begin = writer->offset();
  const auto note = [&](const AppendResult& result) {
    if (result.status != AppendStatus::committed) return;
    say("committed " + id + ' ' + std::to_string(begin) + ' ' + std::to_string(result.offset) +
        ' ' + std::to_string(seed) + (result.completed ? " complete" : " open"));
    begin = result.offset;
  };
  for (std::uint64_t pieces = random().between(1, 5); pieces > 0; --pieces) {
    const std::uint64_t size = size_at(upload, writer->offset());
    if (size == 0) break;
    const bool is_written = co_await write_piece(*writer, seed, size);
    if (!is_written) break;
    if (random().once_in(3)) note(co_await writer->commit());
  }
  if (random().once_in(8)) co_return;  // Destroyed: it closes by itself.
  const AppendResult result = co_await writer->close();
  note(result);
  // What a writer is told at its end is as true, but the bytes may be another's.
  if (result.status == AppendStatus::taken_over) {
    say("stands " + id + ' ' + std::to_string(result.offset));
  }
}

Task<void> Writer::set_length(const Upload& upload) {
  const std::string id(upload.id.view());
  const std::uint64_t length = upload.offset + random().below(2) * random().below(100'000);
  const std::string text = id + ' ' + std::to_string(length);
  say("measuring " + text);
  try {
    co_await storage_.set_length(upload.id, length);
    say("measured " + text);
  } catch (const StorageError& error) {
    if (error.code() != Errc::invalid_argument) throw;  // Else another has told it, or written on.
  }
}

Task<void> Writer::grow(const Upload& upload) {
  std::string id(upload.id.view());
  const std::uint64_t what = random().below(20);
  const bool is_full = upload.offset >= k_max_bytes;
  if (!upload.length && (is_full || what < 3)) {
    co_await set_length(upload);
  } else if (what == 3 && may_remove(id)) {
    co_await remove(std::move(id));
  } else if (what < 12) {
    co_await append(upload);
  } else {
    co_await write(upload);
  }
}

Task<void> Writer::remove(std::string id) {
  say("deleting " + id);
  co_await storage_.delete_upload(id);
  say("deleted " + id);
}

Task<void> Writer::release(std::string id) {
  say("releasing " + id);
  std::filesystem::path path = process_.released / id;
  co_await storage_.release_to(id, std::move(path));
  say("released " + id);
}

Task<void> Writer::concatenate(const Upload& first) {
  std::vector<UploadId> parts{first.id};
  std::uint64_t length = *first.length;
  std::string text = std::string(first.id.view()) + ' ' + std::to_string(length);
  for (std::uint64_t more = random().below(3); more > 0 && !process_.ids.empty(); --more) {
    const std::string id = process_.ids[random().below(process_.ids.size())];
    const std::optional<Upload> part = co_await storage_.get_upload(id);
    if (!part || !part->completed) continue;
    parts.push_back(part->id);
    length += *part->length;
    text += ' ' + id + ' ' + std::to_string(*part->length);
  }
  if (length > 2 * k_max_bytes) co_return;
  const std::string id = new_name();
  say("joining " + id + ' ' + text);
  Metadata metadata;
  co_await storage_.concatenate(id, std::move(parts), std::move(metadata));
  say("joined " + id);
  process_.ids.push_back(id);
}

Task<void> Writer::finish(const Upload& upload) {
  std::string id(upload.id.view());
  const std::uint64_t what = random().below(10);
  if (what < 2) {
    co_await concatenate(upload);
  } else if (!may_remove(id)) {
    co_return;
  } else if (what < 6) {
    co_await remove(std::move(id));
  } else {
    co_await release(std::move(id));
  }
}

Task<void> Writer::step() {
  std::vector<std::string>& ids = process_.ids;
  if (ids.empty() || (ids.size() < k_uploads && random().once_in(4))) {
    std::optional<std::uint64_t> length;
    if (random().once_in(30)) {
      length = 0;
    } else if (!random().once_in(3)) {
      length = std::min(k_max_bytes, some_size(0) * random().between(1, 3));
    }
    std::string name = new_name();
    co_await create(std::move(name), length);
    co_return;
  }
  // Often one of a few, so that writers of both processes meet.
  const std::size_t choice =
      random().once_in(3) ? std::min<std::size_t>(4, ids.size()) : ids.size();
  const std::string id = ids[random().below(choice)];
  const std::optional<Upload> upload = co_await storage_.get_upload(id);
  if (!upload) {
    std::erase(ids, id);
  } else if (upload->completed) {
    co_await finish(*upload);
  } else {
    co_await grow(*upload);
  }
}

/// In a handler: throws on what neither a full disk explains nor another writer that was faster.
void explain(const StorageError& error) {
  if (error.code() == Errc::no_space) {
    say("full");
  } else if (error.code() != Errc::not_found && error.code() != Errc::already_complete &&
             error.code() != Errc::length_exceeded) {
    throw;
  }
}

Task<void> run(Process& process, int index) {
  Writer writer(process);
  try {
    for (int i = index; i < k_shared; i += index + 1) {  // Some are tried by several.
      const bool is_deferred = i % 2 == 0;
      std::optional<std::uint64_t> length;
      if (!is_deferred) length = 400'000;
      std::string name = process.round + std::to_string(i);
      try {
        co_await writer.create(std::move(name), length);
      } catch (const StorageError& error) {
        explain(error);
      }
    }
    while (!process.is_stopping) {
      try {
        co_await writer.step();
      } catch (const StorageError& error) {
        explain(error);
      }
    }
  } catch (const std::exception& error) {
    say(std::string("error ") + error.what());
    std::_Exit(1);
  }
}

Task<void> find_uploads(Process& process) {
  UploadPage page;
  do {
    page = co_await process.storage.list_uploads(page.next, 100);
    for (const Upload& upload : page.uploads) process.ids.emplace_back(upload.id.view());
  } while (page.next);
}

void serve(const std::array<std::string, 5>& arguments) {
  const std::filesystem::path folder = arguments[0];
  Engine engine(engine_options());
  StorageOptions options;
  options.db_path = folder / "uploads.db";
  options.upload_dir = folder / "uploads";
  const bool durable = arguments[4] == "full";
  if (!durable) options.durability = Durability::none;
  const auto storage = sync_wait(engine, SQLiteStorage::open(engine, std::move(options)));
  Process process{.storage = *storage,
                  .released = folder / "released",
                  .round = 's' + arguments[1] + '-',
                  .generation = std::stoull(arguments[2]),
                  .durable = durable};
  sync_wait(storage->executor(), find_uploads(process));
  say("ready");
  Scope scope(storage->executor());
  for (int i = 0; i < std::stoi(arguments[3]); ++i) scope.spawn(run(process, i));
  char ignored = 0;
  while (::read(STDIN_FILENO, &ignored, 1) > 0) {
  }
  process.is_stopping = true;
  sync_wait(engine, scope.join());
  sync_wait(engine, storage->close(std::chrono::seconds(60)));
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 6) throw std::runtime_error("five arguments are needed: see the source");
  serve({argv[1], argv[2], argv[3], argv[4], argv[5]});
} catch (const std::exception& error) {
  say(std::string("error ") + error.what());
  return 1;
}
