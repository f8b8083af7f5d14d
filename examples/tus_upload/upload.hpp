#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <boost/asio/awaitable.hpp>

#include <tidemark/engine/engine.hpp>
#include <tidemark/storage/file_url_storage.hpp>

#include "../progress_bar.hpp"
#include "connection.hpp"
#include "protocol.hpp"
#include "source_file.hpp"

namespace examples {

/// What the uploads of one run share.
struct Run {
  tidemark::Engine& engine;
  SourceFile& file;
  tidemark::FileURLStorage& urls;
  const Url endpoint;  // Where uploads are made.
  ProgressBar& bar;
  std::uint64_t sent = 0;     // By all uploads together.
  bool said_trouble = false;  // Since there was progress.
};

/// One upload on the server, and the piece of the file that belongs there.
///
/// A step is one request: make the upload, ask where it stands, or send a chunk. After a step that
/// failed for now the server is asked where the upload stands, and it goes on from there. Every
/// failure that is not for now throws; so does the one after k_max_retries without progress.
/// Thread safety: none. Lifetime: what it was given outlives it.
class Upload {
 public:
  using Headers = std::vector<std::pair<std::string, std::string>>;

  /// Made with `headers`. Its URL is kept under `fingerprint`.
  Upload(Run& run, const Piece& piece, std::string fingerprint, Headers headers);

  /// Asks where the upload of an earlier run stands, if its URL is kept.
  boost::asio::awaitable<void> find();
  /// Makes the upload unless it was found. Ends when the server has all of the piece.
  boost::asio::awaitable<void> send();
  bool is_complete() const { return in_step_ && offset_ == piece_.length; }
  const Url& url() const { return *url_; }
  /// Asks the server to delete it, whatever the answer, and forgets it.
  boost::asio::awaitable<void> discard();
  /// Removes what is kept of it.
  boost::asio::awaitable<void> forget();

 private:
  boost::asio::awaitable<void> remember();
  boost::asio::awaitable<void> step();
  boost::asio::awaitable<std::string> try_step();
  boost::asio::awaitable<void> create();
  boost::asio::awaitable<void> ask_offset();
  boost::asio::awaitable<void> send_chunk();
  boost::asio::awaitable<Response> exchange(Request request);
  boost::asio::awaitable<void> pause(const std::string& trouble);
  void go_on_at(std::uint64_t offset);
  void move_to(std::uint64_t offset);
  void note_progress();
  [[noreturn]] void refuse(const Response& response, const std::string& why) const;
  [[noreturn]] void fail(const std::string& why) const;

  Run& run_;
  const Piece& piece_;
  const std::string fingerprint_;
  const Headers headers_;
  Connection connection_;
  std::optional<Url> url_;
  bool of_earlier_run_ = false;  // The URL is; so the upload may be gone by now.
  bool in_step_ = false;         // The server stands at offset_.
  std::uint64_t offset_ = 0;     // As last heard of.
  unsigned retries_ = 0;         // Since there was progress.
  std::string doing_;            // The present request.
};

}  // namespace examples
