// Stores a file as an upload: ingest [--data DIR] [--id ID] [--chunk-bytes N] FILE
//
// Kill it at any moment and run it again: it goes on at the committed offset. It ends with one line
// on standard output, `ID LENGTH sha256=HEX`, whose digest is of the bytes that the store gives
// back, after they were compared with FILE. Exits with 0 when FILE is stored, 1 when it could not
// be, 2 when it was called wrongly; what went wrong is one line on standard error.

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>

#include <CLI/CLI.hpp>

#include <tidemark/engine/engine.hpp>
#include <tidemark/engine/sync_wait.hpp>
#include <tidemark/io/directory.hpp>
#include <tidemark/storage/sqlite_storage.hpp>

#include "progress_bar.hpp"
#include "sha256.hpp"

using namespace std::chrono_literals;
using namespace examples;
using namespace tidemark;
using Clock = std::chrono::steady_clock;

namespace {

constexpr std::size_t k_max_chunk_bytes = std::size_t{32} << 20;
// What a crash can cost: bytes that were written and not yet committed.
constexpr std::uint64_t k_commit_bytes = std::uint64_t{8} << 20;
constexpr std::chrono::seconds k_commit_interval{1};

struct Options {
  std::string data = "data";
  std::string id;  // Empty: made from what FILE is.
  std::size_t chunk_bytes = std::size_t{1} << 20;
  std::string file;
};

/// The same FILE, unchanged, has the same id in every run, and so goes on. The digest keeps files
/// apart that share a name: it is of the path, the size and the time of the last change, as in the
/// fingerprints of upload clients, because reading all of a large file only to name it is slow, and
/// a part of it may be the same in many files.
UploadId default_id(const std::filesystem::path& file, const FileStatus& status) {
  const std::string facts = file.string() + '\n' + std::to_string(status.size) + '\n' +
                            std::to_string(status.modified_at.time_since_epoch().count());
  Sha256 sha256;
  sha256.update(std::as_bytes(std::span(facts)));
  std::string id = file.filename().string().substr(0, 40);
  for (char& c : id) {
    if (!UploadId::parse({&c, 1})) c = '_';
  }
  return id + '-' + sha256.hex().substr(0, 16);
}

/// The upload as it stands, made now when there is none yet.
Task<Upload> find_or_create(SQLiteStorage& storage, UploadId id, const std::string& name,
                            std::uint64_t length) {
  std::optional<Upload> upload = co_await storage.get_upload(id);
  if (!upload) {
    Metadata metadata;
    try {
      metadata.set("filename", name);
    } catch (const StorageError&) {  // Not UTF-8, but a name all the same.
      metadata.set_binary("filename", std::as_bytes(std::span(name)));
    }
    try {
      co_await storage.create_upload(id, length, std::move(metadata));
    } catch (const StorageError& error) {  // Another run may have made it meanwhile.
      if (error.code() != Errc::already_exists) throw;
    }
    upload = co_await storage.get_upload(id);
  }
  if (!upload) throw std::runtime_error("the upload was deleted meanwhile");
  if (upload->length != length) {
    throw std::runtime_error("upload '" + std::string(id.view()) + "' is of " +
                             (upload->length ? std::to_string(*upload->length) : "unknown") +
                             " bytes, the file of " + std::to_string(length) +
                             ": choose another --id");
  }
  co_return *std::move(upload);
}

/// The `bytes` of FILE at `offset`.
Task<Buffer> read_piece(SQLiteStorage& storage, File& file, std::uint64_t offset,
                        std::uint64_t bytes) {
  Buffer piece = co_await storage.buffers().acquire(bytes);
  piece.resize(bytes);
  const std::size_t got = co_await file.read_at(offset, piece.bytes());
  if (got < bytes) throw std::runtime_error("the file became shorter while it was read");
  co_return piece;
}

/// Reads FILE and what is stored of it side by side, and digests what is stored.
class Comparison {
 public:
  Comparison(SQLiteStorage& storage, UploadReader& reader, File& file, ProgressBar& bar)
      : storage_(storage), reader_(reader), file_(file), bar_(bar) {}

  /// Goes on to byte `end`. Throws at the first difference.
  Task<void> go_on_to(std::uint64_t end, const char* what) {
    bar_.begin(what, compared_);
    while (compared_ < end) {
      const std::uint64_t bytes = std::min(k_step_bytes, end - compared_);
      Buffer wanted = co_await read_piece(storage_, file_, compared_, bytes);
      Buffer stored = co_await storage_.buffers().acquire(bytes);
      stored.resize(bytes);
      const std::size_t got = co_await reader_.read_at(compared_, stored.bytes());
      if (got < bytes || std::memcmp(stored.data(), wanted.data(), bytes) != 0) {
        throw std::runtime_error("the upload holds other bytes than the file: choose another --id");
      }
      sha256_.update(stored.bytes());
      compared_ += bytes;
      bar_.show(compared_);
    }
  }

  std::string digest() { return sha256_.hex(); }

 private:
  static constexpr std::uint64_t k_step_bytes = std::uint64_t{1} << 20;

  SQLiteStorage& storage_;
  UploadReader& reader_;
  File& file_;
  ProgressBar& bar_;
  Sha256 sha256_;
  std::uint64_t compared_ = 0;
};

/// Writes what is missing of the upload, once what it has was found to be the beginning of FILE.
Task<void> store_rest(SQLiteStorage& storage, const Upload& upload, File& file,
                      std::size_t chunk_bytes, Comparison& comparison, ProgressBar& bar) {
  const std::unique_ptr<UploadWriter> writer = co_await storage.open_writer(upload.id);
  co_await comparison.go_on_to(writer->offset(), "checking");
  bar.begin("storing", writer->offset());
  std::uint64_t committed = writer->offset();
  Clock::time_point committed_at = Clock::now();
  bool writing = true;
  while (writing && writer->offset() < upload.length) {
    // Chunks end at multiples of their size: whatever the offset was, all but the first are
    // aligned. A chunk is read while the one before is on its way.
    const std::uint64_t offset = writer->offset();
    const std::uint64_t bytes =
        std::min(chunk_bytes - offset % chunk_bytes, *upload.length - offset);
    Buffer chunk = co_await read_piece(storage, file, offset, bytes);
    if (offset - committed >= k_commit_bytes || Clock::now() - committed_at >= k_commit_interval) {
      co_await writer->commit();
      committed = offset;
      committed_at = Clock::now();
    }
    writing = co_await writer->write(std::move(chunk));
    bar.show(writer->offset());
  }
  const AppendResult result = co_await writer->close();
  if (!result.completed) throw std::runtime_error("another writer has the upload");
}

Task<File> open_file(const std::filesystem::path& path) {
  const std::string name = path.filename();
  try {
    Directory folder = co_await Directory::open(path.parent_path(), false);
    co_return co_await folder.open_for_reading(name.c_str());
  } catch (const std::system_error& error) {
    throw std::system_error(error.code(), path.string());
  }
}

/// Gives the line that says what is stored.
Task<std::string> ingest(SQLiteStorage& storage, const Options& options) {
  const std::filesystem::path path = options.file;
  File file = co_await open_file(path);
  const FileStatus status = co_await file.status();

  const UploadId id = options.id.empty() ? default_id(path, status) : UploadId(options.id);
  const std::string name = path.filename();
  const Upload upload = co_await find_or_create(storage, id, name, status.size);
  const std::unique_ptr<UploadReader> reader = co_await storage.open_reader(id);
  ProgressBar bar(status.size);
  Comparison comparison(storage, *reader, file, bar);
  try {
    if (!upload.completed) {
      co_await store_rest(storage, upload, file, options.chunk_bytes, comparison, bar);
    }
  } catch (const StorageError& error) {  // Another run may have had it meanwhile.
    if (error.code() != Errc::already_complete) throw;
  }
  co_await comparison.go_on_to(status.size, "verifying");
  co_return std::string(id.view()) + ' ' + std::to_string(status.size) +
      " sha256=" + comparison.digest();
}

Task<std::string> run(Engine& engine, const Options& options) {
  const std::filesystem::path data = options.data;
  StorageOptions storage_options{.db_path = data / "uploads.db", .upload_dir = data / "uploads"};
  const auto storage = co_await SQLiteStorage::open(engine, std::move(storage_options));
  std::string line;
  std::exception_ptr error;
  try {
    line = co_await ingest(*storage, options);
  } catch (...) {
    error = std::current_exception();
  }
  co_await storage->close(5s);
  if (error) std::rethrow_exception(error);
  co_return line;
}

/// Says on standard error what is wrong with the arguments, in one line, and exits.
Options parse(int argc, char** argv) {
  Options options;
  CLI::App app("Stores a file as an upload. Killed and run again, it goes on where it was.");
  app.add_option("--data", options.data, "Folder of uploads.db and uploads/")
      ->capture_default_str();
  app.add_option("--id", options.id, "Name of the upload; by default made from what FILE is")
      ->check([](const std::string& text) {
        return UploadId::parse(text) ? "" : "1 to 64 characters of A-Z, a-z, 0-9, '_' and '-'";
      });
  app.add_option("--chunk-bytes", options.chunk_bytes, "Size of one write")
      ->capture_default_str()
      ->check(CLI::Range(std::size_t{1}, k_max_chunk_bytes));
  app.add_option("FILE", options.file, "What to store")->required();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) std::exit(app.exit(error));  // --help
    std::fprintf(stderr, "ingest: %s\n", error.what());
    std::exit(2);
  }
  return options;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    Options options = parse(argc, argv);
    if (!std::filesystem::is_regular_file(options.file)) {
      throw std::runtime_error("no such file: " + options.file);
    }
    options.file = std::filesystem::canonical(options.file);
    Engine engine;
    const std::string line = sync_wait(engine, run(engine, options));
    std::puts(line.c_str());
    if (std::fflush(stdout) != 0) throw std::system_error(errno, std::generic_category(), "stdout");
  } catch (const std::exception& error) {
    std::fprintf(stderr, "ingest: %s\n", error.what());
    return 1;
  }
}
