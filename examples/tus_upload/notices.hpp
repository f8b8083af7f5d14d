#pragma once

#include <string>

namespace examples {

/// Writes a line to standard error, in place of the progress bar where that stands.
void say(const std::string& line);

/// From now on SIGINT and SIGTERM, unless they are ignored, say that the next run goes on, before
/// they end the program as ever.
void say_when_stopped();

}  // namespace examples
