#include <cerrno>
#include <map>
#include <mutex>
#include <new>
#include <utility>

#include <tidemark/engine/assert.hpp>
#include <tidemark/engine/async_mutex.hpp>
#include <tidemark/io/buffer.hpp>
#include <tidemark/io/file.hpp>

namespace tidemark {

struct Buffer::PoolState : WorkItem, std::enable_shared_from_this<Buffer::PoolState> {
  static constexpr auto k_align = std::align_val_t{BufferPool::k_alignment};

  /// At the start of memory that is free, so that giving it back needs none.
  struct FreeBlock {
    FreeBlock* next;
  };

  PoolState(Executor& on, std::size_t bytes) : executor(on), max_bytes(bytes) {
    WorkItem::run = [](WorkItem& item) noexcept {
      auto& self = static_cast<PoolState&>(item);
      std::shared_ptr<PoolState> keep;
      {
        std::lock_guard lock(self.mutex);
        keep = std::move(self.posted);
      }
      self.released.wake_all();
      self.executor.root_finished();
    };
  }
  ~PoolState() { free_kept_beyond(0); }

  /// Memory for `capacity` bytes. Without room it is nullptr, and the caller waits for `released`
  /// or says that it no longer does.
  std::byte* take(std::size_t capacity) {
    std::lock_guard lock(mutex);
    if (capacity > max_bytes - used) {
      waiting = true;
      return nullptr;
    }
    FreeBlock*& first = kept[capacity];
    void* memory = first;
    if (memory == nullptr) {
      free_kept_beyond(max_bytes - used - capacity);
      memory = ::operator new(capacity, k_align);
    } else {
      first = first->next;
      kept_bytes -= capacity;
    }
    used += capacity;
    return static_cast<std::byte*>(memory);
  }

  void give_back(std::byte* memory, std::size_t capacity) noexcept {
    std::lock_guard lock(mutex);
    used -= capacity;
    FreeBlock*& first = kept.find(capacity)->second;  // There since it was taken.
    first = ::new (memory) FreeBlock{first};
    kept_bytes += capacity;
    TIDEMARK_ASSERT(used + kept_bytes <= max_bytes, "a pool stays within its bound");
    // The engine may be gone, unless someone waits: who does takes the mutex before it leaves, and
    // as a root the wake is waited for.
    if (!std::exchange(waiting, false) || posted != nullptr) return;
    posted = shared_from_this();
    executor.root_started();
    executor.post(*this);
  }

  void stop_waiting() {
    std::lock_guard lock(mutex);
    waiting = false;
  }

  /// What is kept for reuse and what is out stay together within the bound.
  void free_kept_beyond(std::size_t bytes) {
    for (auto& [capacity, first] : kept) {
      while (kept_bytes > bytes && first != nullptr) {
        ::operator delete(std::exchange(first, first->next), k_align);
        kept_bytes -= capacity;
      }
    }
  }

  Executor& executor;
  const std::size_t max_bytes;
  std::mutex mutex;
  std::size_t used = 0;
  bool waiting = false;                    // Someone found no room since the last wake.
  std::map<std::size_t, FreeBlock*> kept;  // Free memory of each capacity ever taken.
  std::size_t kept_bytes = 0;
  std::shared_ptr<PoolState> posted;  // Itself, while it is in the executor's queue.
  AsyncMutex turn;                    // Held by the first of those who wait.
  WaitList released;
};

Buffer::Buffer(Buffer&& other) noexcept {
  *this = std::move(other);
}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  std::swap(pool_, other.pool_);
  std::swap(data_, other.data_);
  std::swap(capacity_, other.capacity_);
  std::swap(size_, other.size_);
  return *this;
}

Buffer::~Buffer() {
  if (data_ != nullptr) pool_->give_back(data_, capacity_);
}

void Buffer::resize(std::size_t size) {
  TIDEMARK_ASSERT(size <= capacity_, "a buffer holds at most its capacity");
  size_ = size;
}

BufferPool::BufferPool(Executor& executor, std::size_t max_bytes)
    : executor_(executor), state_(std::make_shared<Buffer::PoolState>(executor, max_bytes)) {}

BufferPool::~BufferPool() = default;

Task<Buffer> BufferPool::acquire(std::size_t bytes) {
  const std::shared_ptr<Buffer::PoolState> state = state_;
  const std::size_t largest = state->max_bytes / k_alignment * k_alignment;
  if (bytes == 0 || bytes > largest) detail::check(-EINVAL, "BufferPool::acquire");
  const std::size_t capacity = (bytes + k_alignment - 1) / k_alignment * k_alignment;
  const AsyncMutex::Guard turn = co_await state->turn.lock();
  std::byte* memory = state->take(capacity);
  while (memory == nullptr) {
    const bool woken = co_await state->released.wait();
    if (!woken) {
      state->stop_waiting();
      throw operation_canceled();
    }
    memory = state->take(capacity);
  }
  Buffer buffer(state, memory, capacity);
  buffer.resize(bytes);
  co_return buffer;
}

std::size_t BufferPool::bytes_in_use() const {
  std::lock_guard lock(state_->mutex);
  return state_->used;
}

}  // namespace tidemark
