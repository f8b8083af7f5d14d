#pragma once

// Assertions that stay on in every build: a broken invariant in a storage engine must stop the
// process before it reaches the disk. Each costs one predicted branch.

namespace tidemark::detail {

/// Prints the failed condition and its place to standard error, then aborts.
[[noreturn]] void assertion_failed(const char* condition, const char* message, const char* file,
                                   int line) noexcept;

}  // namespace tidemark::detail

/// Aborts the process unless `condition` holds. `message` says what the caller did wrong.
#define TIDEMARK_ASSERT(condition, message) \
  ((condition) ? static_cast<void>(0)       \
               : ::tidemark::detail::assertion_failed(#condition, message, __FILE__, __LINE__))
