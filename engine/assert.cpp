#include <cstdio>
#include <cstdlib>

#include <tidemark/engine/assert.hpp>

namespace tidemark::detail {

void assertion_failed(const char* condition, const char* message, const char* file,
                      int line) noexcept {
  std::fprintf(stderr, "tidemark: %s:%d: assertion failed: %s (%s)\n", file, line, message,
               condition);
  std::abort();
}

}  // namespace tidemark::detail
