#pragma once

#include <cstddef>

namespace tidemark::detail {

/// Memory for coroutine frames, kept in per-thread lists by size, so that an operation in steady
/// state allocates nothing. Under AddressSanitizer it is plain new and delete, so that a frame used
/// after its end is found. Any thread may free what another allocated.
void* allocate_frame(std::size_t bytes);
void free_frame(void* frame, std::size_t bytes) noexcept;

}  // namespace tidemark::detail
