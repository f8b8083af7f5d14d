#pragma once

#include <cstddef>

namespace tidemark::detail {

/// Memory for coroutine frames, kept in per-thread lists by size, so that an operation in steady
/// state allocates nothing. Under AddressSanitizer it is plain new and delete, so that a frame used
/// after its end is found. Any thread may free what another allocated.
void* allocate_frame(std::size_t bytes);
void free_frame(void* frame, std::size_t bytes) noexcept;

/// The same memory for containers whose nodes come and go with operations. The pools of std::pmr
/// are no choice: where memory runs out as they grow, libstdc++'s swallows that and crashes.
template <class T>
struct FrameAllocator {
  using value_type = T;

  FrameAllocator() = default;
  template <class U>
  FrameAllocator(const FrameAllocator<U>&) noexcept {}

  T* allocate(std::size_t count) {
    static_assert(alignof(T) <= __STDCPP_DEFAULT_NEW_ALIGNMENT__);
    return static_cast<T*>(allocate_frame(count * sizeof(T)));
  }
  void deallocate(T* memory, std::size_t count) noexcept { free_frame(memory, count * sizeof(T)); }

  friend bool operator==(const FrameAllocator&, const FrameAllocator&) { return true; }
};

}  // namespace tidemark::detail
