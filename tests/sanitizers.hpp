#pragma once

// Which sanitizers this build runs under: some tests count less there, or cannot run.

#if defined(__has_feature)
#define TIDEMARK_TEST_HAS(feature) __has_feature(feature)
#else
#define TIDEMARK_TEST_HAS(feature) 0
#endif

#if defined(__SANITIZE_ADDRESS__) || TIDEMARK_TEST_HAS(address_sanitizer)
#define TIDEMARK_TEST_ADDRESS_SANITIZER 1
#else
#define TIDEMARK_TEST_ADDRESS_SANITIZER 0
#endif

#if defined(__SANITIZE_THREAD__) || TIDEMARK_TEST_HAS(thread_sanitizer)
#define TIDEMARK_TEST_THREAD_SANITIZER 1
#else
#define TIDEMARK_TEST_THREAD_SANITIZER 0
#endif

namespace tidemark::test {

inline constexpr bool k_address_sanitizer = TIDEMARK_TEST_ADDRESS_SANITIZER != 0;
inline constexpr bool k_thread_sanitizer = TIDEMARK_TEST_THREAD_SANITIZER != 0;

}  // namespace tidemark::test
