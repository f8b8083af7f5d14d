#pragma once

// Replaces operator new, for one file of a program to include: an allocation_test.cpp, which the
// builds with valgrind leave out. Not for sanitizers, which bring their own allocators.

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <new>
#include <utility>

namespace tidemark::test {

/// Allocations of all threads so far.
inline std::atomic<std::size_t> allocations{0};

/// How many more allocations of this thread succeed.
inline thread_local std::size_t allocations_left = static_cast<std::size_t>(-1);

/// While it lives, this thread's allocations fail, after the first `left`.
class FailingAllocations {
 public:
  explicit FailingAllocations(std::size_t left = 0)
      : before_(std::exchange(allocations_left, left)) {}
  ~FailingAllocations() { allocations_left = before_; }
  FailingAllocations(const FailingAllocations&) = delete;
  FailingAllocations& operator=(const FailingAllocations&) = delete;

 private:
  const std::size_t before_;
};

inline void* allocate(std::size_t bytes, std::size_t alignment = alignof(std::max_align_t)) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  if (allocations_left == 0) throw std::bad_alloc();
  --allocations_left;
  const std::size_t rounded = (bytes + alignment) / alignment * alignment;
  void* const memory = std::aligned_alloc(alignment, rounded);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace tidemark::test

// All other forms call these. Memory resources use the aligned ones.
void* operator new(std::size_t bytes) {
  return tidemark::test::allocate(bytes);
}
void* operator new(std::size_t bytes, std::align_val_t alignment) {
  return tidemark::test::allocate(bytes, static_cast<std::size_t>(alignment));
}
void operator delete(void* memory) noexcept {
  std::free(memory);
}
void operator delete(void* memory, std::size_t) noexcept {
  std::free(memory);
}
void operator delete(void* memory, std::align_val_t) noexcept {
  std::free(memory);
}
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept {
  std::free(memory);
}
