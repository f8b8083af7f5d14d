#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <utility>

#include <tidemark/engine/wait_list.hpp>

namespace tidemark {

class BufferPool;

/// A piece of aligned memory from a BufferPool, fit for direct I/O. Move-only; it goes back to its
/// pool when destroyed, in any thread, also after the pool is gone.
class Buffer {
 public:
  Buffer() = default;
  Buffer(Buffer&& other) noexcept;
  Buffer& operator=(Buffer&& other) noexcept;
  ~Buffer();

  std::size_t capacity() const { return capacity_; }
  std::size_t size() const { return size_; }
  /// How much of the capacity holds data. At most the capacity.
  void resize(std::size_t size);
  std::byte* data() { return data_; }
  std::span<std::byte> bytes() { return {data_, size_}; }
  std::span<const std::byte> bytes() const { return {data_, size_}; }

 private:
  friend class BufferPool;
  struct PoolState;

  Buffer(std::shared_ptr<PoolState> pool, std::byte* data, std::size_t capacity)
      : pool_(std::move(pool)), data_(data), capacity_(capacity), size_(capacity) {}

  std::shared_ptr<PoolState> pool_;
  std::byte* data_ = nullptr;
  std::size_t capacity_ = 0;
  std::size_t size_ = 0;
};

/// Buffers bounded by their total bytes: `acquire` waits while the bound is reached, and that wait
/// is the back-pressure of whoever reads from a network.
///
/// Thread safety: `acquire` is a bound task and may be awaited anywhere. Lifetime: the engine
/// outlives the pool; buffers may outlive both.
class BufferPool {
 public:
  static constexpr std::size_t k_alignment = 4096;

  /// At most `max_bytes` are out at once, counted in capacities; kept memory is within that too.
  BufferPool(Executor& executor, std::size_t max_bytes);
  ~BufferPool();
  BufferPool(const BufferPool&) = delete;
  BufferPool& operator=(const BufferPool&) = delete;

  Executor& executor() { return executor_; }

  /// A buffer of `bytes`, its capacity rounded up to the alignment; first come, first served.
  /// Throws std::errc::invalid_argument for 0 or a capacity of more than `max_bytes`, and
  /// std::errc::operation_canceled when stopped.
  Task<Buffer> acquire(std::size_t bytes);

  std::size_t bytes_in_use() const;

 private:
  Executor& executor_;
  std::shared_ptr<Buffer::PoolState> state_;
};

}  // namespace tidemark
