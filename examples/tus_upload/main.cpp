// Sends a file to a tus server:
//
//     tus_upload [--url-store PATH] [--chunk-bytes N] [--parallel N] FILE URL
//
// URL is where the server makes uploads. Kill it at any moment and run it again: it goes on where
// the server stands, by the URL that it has kept under the file's digest. It ends with one line on
// standard output, `URL LENGTH sha256=HEX`, of the upload. Exits with 0 when the server has all of
// FILE, 1 when it could not be sent, 2 when it was called wrongly. Standard error has a line when
// an earlier run is gone on with, when a request fails and is tried again, and when the program
// fails.

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>

#include <CLI/CLI.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/use_future.hpp>

#include <tidemark/engine/engine.hpp>
#include <tidemark/engine/sync_wait.hpp>
#include <tidemark/storage/file_url_storage.hpp>
#include <tidemark/storage/storage_error.hpp>

#include "notices.hpp"
#include "protocol.hpp"
#include "source_file.hpp"
#include "transfer.hpp"

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

/// Gives the line that says what the server has.
std::string send_file(const Options& options, const Url& endpoint) {
  if (!std::filesystem::exists(options.file)) {
    throw std::runtime_error("no such file: " + options.file);
  }
  if (!std::filesystem::is_regular_file(options.file)) {
    throw std::runtime_error("not a regular file: " + options.file);
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

/// Without "input/output error" behind what the system itself said.
std::string message_of(const StorageError& error) {
  std::string text = error.what();
  const std::string meaning = ": " + error.code().message();
  if (error.code() == Errc::io_error && text.ends_with(meaning)) {
    text.resize(text.size() - meaning.size());
  }
  return text;
}

/// Says on standard error what is wrong with the arguments, in one line, and exits.
Options parse(int argc, char** argv) {
  Options options;
  CLI::App app("Sends a file to a tus server. Killed and run again, it goes on where it was.");
  app.add_option("--url-store", options.url_store, "Where URLs of unfinished uploads are kept")
      ->capture_default_str();
  app.add_option("--chunk-bytes", options.chunk_bytes,
                 "Most bytes of one request, 64KiB to 32MiB, also in such units")
      ->capture_default_str()
      ->type_name("BYTES")
      ->transform(CLI::AsSizeValue(true).description(""))
      ->check(CLI::Range(k_min_chunk_bytes, k_max_chunk_bytes).description(""));
  app.add_option(
         "--parallel", options.parallel,
         "Connections that send a piece of FILE each; a later run goes on with the same number")
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
    say(error.what());
    std::exit(2);
  }
  return options;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const Options options = parse(argc, argv);
    say_when_stopped();
    const std::string line = send_file(options, parse_url(options.url));
    std::puts(line.c_str());
    if (std::fflush(stdout) != 0) throw std::system_error(errno, std::generic_category(), "stdout");
  } catch (const StorageError& error) {
    say(message_of(error));
    return 1;
  } catch (const std::exception& error) {
    say(error.what());
    return 1;
  }
}
