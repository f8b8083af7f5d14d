#include <array>
#include <new>
#include <utility>

#include <tidemark/engine/frame_pool.hpp>

namespace tidemark::detail {
namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr bool k_recycle = false;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
constexpr bool k_recycle = false;
#else
constexpr bool k_recycle = true;
#endif
#else
constexpr bool k_recycle = true;
#endif

constexpr std::size_t k_step_bytes = 128;
constexpr std::size_t k_classes = 24;          // Frames up to 3 KiB are kept.
constexpr std::size_t k_kept_per_class = 256;  // For each thread.

struct FreeFrame {
  FreeFrame* next;
};

struct FreeLists {
  struct List {
    FreeFrame* head = nullptr;
    std::size_t count = 0;
  };
  std::array<List, k_classes> lists;

  ~FreeLists();
};

// A frame can be freed by a thread-local destructor that runs after the lists' own.
thread_local bool lists_gone = false;
thread_local FreeLists free_lists;

FreeLists::~FreeLists() {
  lists_gone = true;
  for (List& list : lists) {
    while (list.head != nullptr) ::operator delete(std::exchange(list.head, list.head->next));
  }
}

std::size_t class_of(std::size_t bytes) {
  return (bytes - 1) / k_step_bytes;
}

}  // namespace

void* allocate_frame(std::size_t bytes) {
  const std::size_t size_class = class_of(bytes);
  if (!k_recycle || size_class >= k_classes) return ::operator new(bytes);
  // All of its class, since the thread that frees it may have lists.
  const std::size_t class_bytes = (size_class + 1) * k_step_bytes;
  if (lists_gone) return ::operator new(class_bytes);
  FreeLists::List& list = free_lists.lists[size_class];
  if (list.head == nullptr) return ::operator new(class_bytes);
  --list.count;
  return std::exchange(list.head, list.head->next);
}

void free_frame(void* frame, std::size_t bytes) noexcept {
  const std::size_t size_class = class_of(bytes);
  if (!k_recycle || size_class >= k_classes || lists_gone) return ::operator delete(frame);
  FreeLists::List& list = free_lists.lists[size_class];
  if (list.count == k_kept_per_class) return ::operator delete(frame);
  list.head = new (frame) FreeFrame{list.head};
  ++list.count;
}

}  // namespace tidemark::detail
