#include "log.hpp"

#include <array>
#include <chrono>
#include <ctime>
#include <poll.h>
#include <string>
#include <unistd.h>

#include <boost/json/serialize.hpp>

namespace tus {

void log(std::string_view event, const boost::json::object& facts) {
  const auto now = std::chrono::system_clock::now();
  const std::time_t seconds = std::chrono::system_clock::to_time_t(now);
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(now.time_since_epoch());
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  std::array<char, 64> time{};
  const std::size_t size = std::strftime(time.data(), time.size(), "%Y-%m-%dT%H:%M:%S", &parts);
  const std::string fraction = std::to_string(1000 + ms.count() % 1000).replace(0, 1, ".") + 'Z';

  boost::json::object line;
  line["time"] = std::string(time.data(), size) + fraction;
  line["event"] = event;
  for (const auto& fact : facts) line[fact.key()] = fact.value();
  const std::string text = boost::json::serialize(line) + '\n';
  // A log that nobody reads stops no upload.
  pollfd end{STDERR_FILENO, POLLOUT, 0};
  if (::poll(&end, 1, 0) != 1) return;
  // One write, so that the lines of several threads and processes do not mix.
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, text.data(), text.size());
}

}  // namespace tus
