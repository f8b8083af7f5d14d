#include "log.hpp"

#include <chrono>
#include <mutex>
#include <poll.h>
#include <string>
#include <unistd.h>

#include <boost/json/serialize.hpp>
#include <climits>

#include "header_values.hpp"

namespace tus {

void log(std::string_view event, const boost::json::object& facts) {
  const auto now = std::chrono::floor<std::chrono::milliseconds>(std::chrono::system_clock::now());
  const auto second = std::chrono::floor<std::chrono::seconds>(now);
  const std::string ms = std::to_string(1000 + (now - second).count()).substr(1);

  boost::json::object line;
  line["time"] = format_time(second, "%Y-%m-%dT%H:%M:%S") + '.' + ms + 'Z';
  line["event"] = event;
  for (const auto& fact : facts) line[fact.key()] = fact.value();
  const std::string text = boost::json::serialize(line) + '\n';
  // A log that nobody reads stops no upload: a pipe that can be written has room for so much, once.
  if (text.size() > PIPE_BUF) return log(event);
  static std::mutex one_at_a_time;
  const std::lock_guard lock(one_at_a_time);
  pollfd end{STDERR_FILENO, POLLOUT, 0};
  if (::poll(&end, 1, 0) != 1 || (end.revents & POLLOUT) == 0) return;
  // One write, so that the lines of several threads and processes do not mix.
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, text.data(), text.size());
}

}  // namespace tus
