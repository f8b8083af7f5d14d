// Sends a file to a tus server:
//
//     tus_upload [--url-store PATH] [--chunk-bytes N] [--parallel N] FILE URL
//
// URL is where the server makes uploads. Kill it at any moment and run it again: it goes on where
// the server stands, by the URL that it has kept under the file's digest. It ends with one line on
// standard output, `URL LENGTH sha256=HEX`, of the upload. Exits with 0 when the server has all of
// FILE, 1 when it could not be sent, 2 when it was called wrongly; what went wrong is one line on
// standard error.

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <memory>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <CLI/CLI.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/deferred.hpp>
#include <boost/asio/experimental/parallel_group.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/use_future.hpp>

#include <tidemark/engine/engine.hpp>
#include <tidemark/engine/sync_wait.hpp>
#include <tidemark/storage/file_url_storage.hpp>

#include "protocol.hpp"
#include "source_file.hpp"
#include "upload.hpp"

using namespace examples;
using namespace tidemark;
namespace asio = boost::asio;

namespace {

// A server that syncs a chunk before it answers is kept busy, and a broken connection costs little.
constexpr std::size_t k_default_chunk_bytes = std::size_t{8} << 20;
constexpr std::size_t k_min_chunk_bytes = std::size_t{64} << 10;  // Each has a digest in memory.
constexpr std::size_t k_max_chunk_bytes = std::size_t{32} << 20;
constexpr std::size_t k_max_parallel = 64;

struct Options {
  std::string url_store = ".tus_urls.json";
  std::size_t chunk_bytes = k_default_chunk_bytes;
  std::size_t parallel = 1;
  std::string file;
  std::string url;
};

using Uploads = std::vector<std::unique_ptr<Upload>>;

/// Sends all of them at once. The first that fails ends the others.
asio::awaitable<void> send_all(Uploads& uploads) {
  const asio::any_io_executor executor = co_await asio::this_coro::executor;
  const auto start = [&executor](Upload& upload) {
    return asio::co_spawn(executor, upload.send(), asio::deferred);
  };
  std::vector<decltype(start(*uploads.front()))> operations;
  for (const auto& upload : uploads) operations.push_back(start(*upload));
  auto group = asio::experimental::make_parallel_group(std::move(operations));
  const auto ended =
      co_await group.async_wait(asio::experimental::wait_for_one_error(), asio::use_awaitable);
  const auto& [order, errors] = ended;
  for (const std::size_t index : order) {
    if (errors[index]) std::rethrow_exception(errors[index]);
  }
}

/// Gives the URL of the upload that holds the whole file.
asio::awaitable<std::string> transfer(Run& run, std::string filename) {
  const std::vector<Piece>& pieces = run.file.pieces();
  const std::string fingerprint = fingerprint_of(run.file.size(), run.file.sha256());
  const std::string metadata = metadata_value(filename);
  Uploads uploads;
  for (const Piece& piece : pieces) {
    std::string name = fingerprint;
    Upload::Headers headers = {{"Upload-Length", std::to_string(piece.length)}};
    if (pieces.size() == 1) {
      headers.emplace_back("Upload-Metadata", metadata);
    } else {
      name = part_fingerprint(fingerprint, uploads.size() + 1, pieces.size());
      headers.emplace_back("Upload-Concat", "partial");
    }
    uploads.push_back(std::make_unique<Upload>(run, piece, std::move(name), std::move(headers)));
  }
  run.bar.begin("sending", 0);
  co_await send_all(uploads);

  std::string url(uploads.front()->url().buffer());
  if (uploads.size() > 1) {
    std::vector<Url> parts;
    for (const auto& upload : uploads) parts.push_back(upload->url());
    const Piece nothing;  // The parts have all that it consists of.
    Upload::Headers headers = {{"Upload-Concat", final_value(parts)},
                               {"Upload-Metadata", metadata}};
    Upload whole(run, nothing, "", std::move(headers));
    co_await whole.send();
    url = std::string(whole.url().buffer());
  }
  for (const auto& upload : uploads) co_await upload->forget();
  co_return url;
}

/// Gives the line that says what the server has.
std::string send_file(const Options& options, const Url& endpoint) {
  if (!std::filesystem::is_regular_file(options.file)) {
    throw std::runtime_error("no such file: " + options.file);
  }
  const std::filesystem::path path = std::filesystem::canonical(options.file);
  Engine engine;
  const auto file =
      sync_wait(engine, SourceFile::open(engine, path, options.parallel, options.chunk_bytes));
  ProgressBar bar(file->size());
  sync_wait(engine, file->digest(bar));

  FileURLStorage urls(engine, options.url_store);
  Run run{engine, *file, urls, endpoint, bar};
  asio::io_context io(1);
  auto url = asio::co_spawn(io, transfer(run, path.filename()), asio::use_future);
  io.run();
  return url.get() + ' ' + std::to_string(file->size()) + " sha256=" + file->sha256();
}

/// Says on standard error what is wrong with the arguments, in one line, and exits.
Options parse(int argc, char** argv) {
  Options options;
  CLI::App app("Sends a file to a tus server. Killed and run again, it goes on where it was.");
  app.add_option("--url-store", options.url_store, "Where URLs of unfinished uploads are kept")
      ->capture_default_str();
  app.add_option("--chunk-bytes", options.chunk_bytes, "Size of one request")
      ->capture_default_str()
      ->check(CLI::Range(k_min_chunk_bytes, k_max_chunk_bytes));
  app.add_option("--parallel", options.parallel, "Connections that send a piece of FILE each")
      ->capture_default_str()
      ->check(CLI::Range(std::size_t{1}, k_max_parallel));
  app.add_option("FILE", options.file, "What to send")->required();
  app.add_option("URL", options.url, "Where uploads are made, such as http://host:1080/files/")
      ->required()
      ->check([](const std::string& text) {
        try {
          parse_url(text);
          return std::string();
        } catch (const std::exception& error) {
          return std::string(error.what());
        }
      });
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) std::exit(app.exit(error));  // --help
    std::fprintf(stderr, "tus_upload: %s\n", error.what());
    std::exit(2);
  }
  return options;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const Options options = parse(argc, argv);
    const std::string line = send_file(options, parse_url(options.url));
    std::puts(line.c_str());
    if (std::fflush(stdout) != 0) throw std::system_error(errno, std::generic_category(), "stdout");
  } catch (const std::exception& error) {
    std::fprintf(stderr, "tus_upload: %s\n", error.what());
    return 1;
  }
}
