#include "allocations.hpp"

#include <cstddef>
#include <cstdlib>
#include <new>
#include <stdexcept>
#include <utility>

#include <sqlite3.h>

namespace tidemark::sim {
namespace {

bool counted = false;
NthFault the_fault;

bool fails() {
  return counted && the_fault.fails();
}

sqlite3_mem_methods under;

}  // namespace

void Allocations::watch_sqlite() {
  if (sqlite3_config(SQLITE_CONFIG_GETMALLOC, &under) != SQLITE_OK) {
    throw std::runtime_error("SQLite was in use before");
  }
  sqlite3_mem_methods own = under;
  own.xMalloc = [](int size) { return fails() ? nullptr : under.xMalloc(size); };
  own.xRealloc = [](void* memory, int size) {
    return fails() ? nullptr : under.xRealloc(memory, size);
  };
  if (sqlite3_config(SQLITE_CONFIG_MALLOC, &own) != SQLITE_OK) {
    throw std::runtime_error("SQLite was in use before");
  }
}

NthFault& Allocations::fault() {
  return the_fault;
}

Allocations::Scope::Scope(bool is_counted) : before_(std::exchange(counted, is_counted)) {}

Allocations::Scope::~Scope() {
  counted = before_;
}

}  // namespace tidemark::sim

// The other forms call these.
void* operator new(std::size_t bytes) {
  void* const memory = tidemark::sim::fails() ? nullptr : std::malloc(bytes == 0 ? 1 : bytes);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
void* operator new(std::size_t bytes, std::align_val_t alignment) {
  const auto align = static_cast<std::size_t>(alignment);
  const std::size_t whole = (bytes + align - 1) / align * align;  // Of none it may give null.
  void* const memory =
      tidemark::sim::fails() ? nullptr : std::aligned_alloc(align, whole == 0 ? align : whole);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
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
