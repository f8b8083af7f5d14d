#include <chrono>
#include <memory>
#include <vector>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>

#include "load.hpp"
#include "mixed_client.hpp"

namespace tidemark::bench {

MixedResult run_mixed_load(const MixedLoad& load) {
  const std::vector<char> pool = random_bytes(32 << 20, load.seed);
  MixedResult result;
  boost::asio::io_context context(1);
  std::vector<std::unique_ptr<MixedClient>> clients;
  const auto end = std::chrono::steady_clock::now() +
                   std::chrono::duration_cast<std::chrono::steady_clock::duration>(
                       std::chrono::duration<double, std::ratio<60>>(load.minutes));
  for (unsigned number = 0; number < load.connections; ++number) {
    clients.push_back(std::make_unique<MixedClient>(context.get_executor(), load.url,
                                                    load.seed + number, pool, end, result));
    boost::asio::co_spawn(context, clients.back()->run(), boost::asio::detached);
  }
  context.run();
  return result;
}

}  // namespace tidemark::bench
