#pragma once

// What the tests of examples/tus_upload/ share.

#include <algorithm>
#include <csignal>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <iterator>
#include <map>
#include <optional>
#include <sched.h>
#include <string>
#include <utility>
#include <vector>

#include <boost/json.hpp>

#include "../catch.hpp"
#include "ingest_fixture.hpp"
#include "tus_server_process.hpp"

namespace tidemark::test {

/// A folder with files to send, in which the client runs.
struct TusUploadFixture : IngestFixture {
  std::string line_for(const std::string& url, const std::filesystem::path& file) const {
    return url + ' ' + std::to_string(std::filesystem::file_size(file)) +
           " sha256=" + sha256_of(file) + '\n';
  }

  /// As the client calls the file in its URL store.
  static std::string fingerprint_of(const std::filesystem::path& file) {
    return "size:" + std::to_string(std::filesystem::file_size(file)) +
           "--sha256:" + sha256_of(file);
  }

  /// What the client has kept: fingerprint and URL.
  std::map<std::string, std::string> kept() const {
    std::map<std::string, std::string> urls;
    if (!std::filesystem::exists(folder / ".tus_urls.json")) return urls;
    const boost::json::value store = boost::json::parse(contents(folder / ".tus_urls.json"));
    for (const auto& [name, url] : store.as_object()) {
      urls.emplace(name, boost::json::value_to<std::string>(url));
    }
    return urls;
  }

  void keep(const std::filesystem::path& file, const std::string& url) const {
    write_contents(folder / ".tus_urls.json",
                   boost::json::serialize(boost::json::object{{fingerprint_of(file), url}}));
  }

  ExampleResult send(const std::filesystem::path& file, const std::string& url,
                     std::vector<std::string> options = {}) const {
    options.insert(options.end(), {file.string(), url});
    return run_example(folder.path(), "tus_upload", std::move(options));
  }
};

/// The same beside a server that keeps its uploads in `data`.
struct TusServerFixture : TusUploadFixture {
  TusServerFixture() {
    data = folder / "server/data";
    database = data / "uploads.db";
    std::filesystem::create_directory(folder / "server");
    server.emplace(folder / "server");
  }

  std::optional<TusServer> server;

  /// Where it makes uploads.
  std::string url() const {
    return "http://127.0.0.1:" + std::to_string(server->port()) + "/files/";
  }

  /// Kills it, and gives it its port again.
  void restart_server() {
    const unsigned short port = server->port();
    server.reset();
    server.emplace(folder / "server", std::vector<std::string>(), port);
  }

  static std::string id_of(const std::string& url) { return url.substr(url.rfind('/') + 1); }

  /// Of what is kept, the ids on the server.
  std::vector<std::string> kept_ids() const {
    std::vector<std::string> ids;
    for (const auto& [name, url] : kept()) ids.push_back(id_of(url));
    return ids;
  }

  std::uint64_t offset_of(const std::string& id) const {
    return row_offset(database, id).value_or(0);
  }

  /// The URL that a run has printed.
  static std::string url_in(const ExampleResult& result) {
    return result.output.substr(0, result.output.find(' '));
  }

  /// That the server has the file, and the client said so and nothing else, and keeps nothing.
  void check_sent(const ExampleResult& result, const std::filesystem::path& file) const {
    CHECK(result.errors.empty());
    check_sent_after_all(result, file);
  }

  /// The same, whatever else the client said.
  void check_sent_after_all(const ExampleResult& result, const std::filesystem::path& file) const {
    INFO(result.errors);
    CHECK(result.exit_code == 0);
    const std::string sent_to = url_in(result);
    REQUIRE(sent_to.starts_with(url()));
    CHECK(result.output == line_for(sent_to, file));
    CHECK((contents(stored(id_of(sent_to))) == contents(file)));
    CHECK(row_offset(database, id_of(sent_to)) == std::filesystem::file_size(file));
    CHECK(kept().empty());
  }

  std::ptrdiff_t uploads_on_server() const {
    const std::filesystem::directory_iterator files(data / "uploads");
    return std::distance(begin(files), end(files));
  }

  /// Sends in small chunks until `reached`, and ends the client then. Gives what it said.
  std::string kill_when(const std::filesystem::path& file, std::vector<std::string> options,
                        const std::function<bool()>& reached, int signal = SIGKILL) const {
    options.insert(options.end(), {"--chunk-bytes", "64KiB", file.string(), url()});
    ExampleProgram program(folder.path(), "tus_upload", std::move(options));
    while (!program.has_ended() && !reached()) ::sched_yield();
    ::kill(program.pid(), signal);
    const ExampleResult result = program.wait();
    INFO(result.errors);
    REQUIRE(result.exit_code == -1);
    return result.errors;
  }

  /// Kills it once each of `count` uploads that it keeps has some bytes; gives their ids.
  std::vector<std::string> kill_in_the_middle(const std::filesystem::path& file,
                                              std::vector<std::string> options = {},
                                              std::size_t count = 1) const {
    kill_when(file, std::move(options), [&] {
      const std::vector<std::string> ids = kept_ids();
      return ids.size() == count &&
             std::ranges::all_of(ids, [&](const std::string& id) { return offset_of(id) > 0; });
    });
    return kept_ids();
  }
};

}  // namespace tidemark::test
