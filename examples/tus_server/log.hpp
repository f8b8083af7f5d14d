#pragma once

#include <string_view>

#include <boost/json/object.hpp>

namespace tus {

/// Writes one line of JSON to standard error: the time, the event and its facts, without these when
/// the line would be longer than PIPE_BUF. A pipe that nobody reads gets none. Any thread.
void log(std::string_view event, const boost::json::object& facts = {});

}  // namespace tus
