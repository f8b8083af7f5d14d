#pragma once

// One of the clients of the mixed load.

#include <chrono>
#include <cstdint>
#include <random>
#include <span>
#include <string>

#include <boost/asio/awaitable.hpp>

#include "channel.hpp"
#include "load.hpp"

namespace tidemark::bench {

/// Makes one upload after the other, of random bytes and in random pieces. Now and then it is cut
/// off in the middle of a PATCH, goes on while an old connection of its own is half dead, asks
/// where it stands, or gives up. What it ends it reads back. One thread.
class MixedClient {
 public:
  /// The uploads are parts of `pool`; what it does is added to `result`. Both outlive the client.
  MixedClient(boost::asio::any_io_executor executor, const TusUrl& url, std::uint64_t seed,
              std::span<const char> pool, std::chrono::steady_clock::time_point end,
              MixedResult& result);

  /// Until `end`, when it gives up what it is at, or until there were 100 errors. Throws nothing of
  /// the server's or the network's.
  boost::asio::awaitable<void> run();

 private:
  boost::asio::awaitable<void> make_upload();
  boost::asio::awaitable<void> create();
  boost::asio::awaitable<void> append();
  boost::asio::awaitable<void> be_cut_off();
  boost::asio::awaitable<void> take_over();
  boost::asio::awaitable<void> ask();
  boost::asio::awaitable<void> end_rival();
  boost::asio::awaitable<void> compare();
  boost::asio::awaitable<void> remove();

  boost::asio::awaitable<void> send_part();
  std::string patch_head(std::size_t bytes) const;
  std::size_t random_size(double most);
  std::size_t random_patch_size();

  const TusUrl& url_;
  std::mt19937_64 random_;
  std::span<const char> pool_;
  const std::chrono::steady_clock::time_point end_;
  MixedResult& result_;
  Channel channel_;
  Channel rival_;  // The old connection, after a take-over.

  std::string target_;
  std::span<const char> content_;
  std::uint64_t offset_ = 0;  // What the server has acknowledged.
  std::uint64_t sent_ = 0;    // The highest offset that any connection has sent bytes for.
  // The server may not have read all that was sent on a connection which we gave up. Until a later
  // PATCH succeeded, the upload may stand further on than was acknowledged, and PATCHes may
  // collide.
  bool contested_ = false;
};

}  // namespace tidemark::bench
