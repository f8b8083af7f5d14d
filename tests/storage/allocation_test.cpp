// Without memory nothing is half done. Not for sanitizers, which bring their own allocators.

#include "sanitizers.hpp"

#if !TIDEMARK_TEST_ADDRESS_SANITIZER && !TIDEMARK_TEST_THREAD_SANITIZER

#include <cstddef>
#include <new>
#include <string>

#include <tidemark/storage/metadata.hpp>

#include "allocations.hpp"
#include "catch.hpp"

using namespace tidemark;
using namespace tidemark::test;

TEST_CASE("metadata is unchanged when a key finds no memory", "[allocation]") {
  const std::string key(100, 'k');
  bool was_set = false;
  for (std::size_t left = 0; !was_set; ++left) {
    Metadata metadata{{"a", "1"}, {"b", "2"}, {"c", "3"}, {"d", "4"}};
    const std::string before = metadata.to_json();
    try {
      const FailingAllocations none(left);
      metadata.set(key, key);
      was_set = true;
    } catch (const std::bad_alloc&) {
    }
    if (was_set) continue;
    CHECK(metadata.to_json() == before);
    metadata.set(key, key);
    CHECK(metadata.find(key) != nullptr);
  }
}

#endif
