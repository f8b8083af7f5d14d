// Without memory nothing breaks. Not for sanitizers, which bring their own allocators.

#include "sanitizers.hpp"

#if !TIDEMARK_TEST_ADDRESS_SANITIZER && !TIDEMARK_TEST_THREAD_SANITIZER

#include <optional>

#include <tidemark/engine/sync_wait.hpp>
#include <tidemark/io/buffer.hpp>

#include "allocations.hpp"
#include "catch.hpp"
#include "driver_fixture.hpp"

using namespace tidemark;
using namespace tidemark::test;

TEST_CASE("a buffer is given back without memory", "[allocation]") {
  EngineFixture fixture;
  BufferPool pool(fixture.executor, 2 * BufferPool::k_alignment);
  std::optional<Buffer> first = sync_wait(fixture.executor, pool.acquire(1));
  std::optional<Buffer> second = sync_wait(fixture.executor, pool.acquire(1));
  {
    const FailingAllocations none;
    first.reset();
    second.reset();
  }
  CHECK(pool.bytes_in_use() == 0);
}

#endif
