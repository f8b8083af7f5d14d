#pragma once

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

namespace tidemark::bench {

/// Ends the process with `what`, and the text of `error` unless it is 0, on standard error. For the
/// process of a baseline, where nothing is worth saving.
[[noreturn]] inline void die(const std::string& what, int error = 0) {
  std::fprintf(stderr, "tidemark_bench: %s%s%s\n", what.c_str(), error == 0 ? "" : ": ",
               error == 0 ? "" : std::strerror(error));
  std::_Exit(1);
}

}  // namespace tidemark::bench
