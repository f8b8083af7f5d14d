#include <cerrno>
#include <map>
#include <mutex>
#include <new>
#include <vector>

#include <tidemark/engine/assert.hpp>
#include <tidemark/engine/async_mutex.hpp>
#include <tidemark/io/buffer.hpp>
#include <tidemark/io/file.hpp>

namespace tidemark {

struct Buffer::PoolState : WorkItem, std::enable_shared_from_this<Buffer::PoolState> {
  static constexpr auto k_align = std::align_val_t{BufferPool::k_alignment};

  PoolState(Executor& on, std::size_t bytes) : executor(on), max_bytes(bytes) {
    WorkItem::run = [](WorkItem& item) noexcept {
      auto& self = static_cast<PoolState&>(item);
      const std::shared_ptr<PoolState> keep = std::exchange(self.posted, nullptr);
      self.released.wake_all();
    };
  }
  ~PoolState() {
    for (auto& [capacity, list] : free) {
      for (std::byte* memory : list) ::operator delete(memory, k_align);
    }
  }

  /// Memory for `capacity` bytes, or nullptr when that would pass the bound.
  std::byte* take(std::size_t capacity) {
    std::lock_guard lock(mutex);
    if (capacity > max_bytes - used) {
      waiting = true;
      return nullptr;
    }
    used += capacity;
    std::vector<std::byte*>& list = free[capacity];
    if (list.empty()) return static_cast<std::byte*>(::operator new(capacity, k_align));
    std::byte* const memory = list.back();
    list.pop_back();
    kept -= capacity;
    return memory;
  }

  void give_back(std::byte* memory, std::size_t capacity) {
    bool wake = false;
    {
      std::lock_guard lock(mutex);
      used -= capacity;
      // What is kept for reuse and what is out stay together within the bound.
      if (kept + capacity <= max_bytes - used) {
        free[capacity].push_back(memory);
        kept += capacity;
        memory = nullptr;
      }
      wake = std::exchange(waiting, false);
    }
    if (memory != nullptr) ::operator delete(memory, k_align);
    if (!wake) return;
    posted = shared_from_this();
    executor.post(*this);
  }

  Executor& executor;
  const std::size_t max_bytes;
  std::mutex mutex;
  std::size_t used = 0;
  std::size_t kept = 0;
  bool waiting = false;  // Someone found no room since the last wake.
  std::map<std::size_t, std::vector<std::byte*>> free;
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
  const std::size_t capacity = (bytes + k_alignment - 1) / k_alignment * k_alignment;
  if (bytes == 0 || capacity > state_->max_bytes) detail::check(-EINVAL, "BufferPool::acquire");
  const std::shared_ptr<Buffer::PoolState> state = state_;
  const AsyncMutex::Guard turn = co_await state->turn.lock();
  std::byte* memory = state->take(capacity);
  while (memory == nullptr) {
    const bool woken = co_await state->released.wait();
    if (!woken) throw operation_canceled();
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
