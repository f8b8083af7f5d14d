#include <algorithm>
#include <cstdint>

#include <tidemark/storage/detail/failure.hpp>
#include <tidemark/storage/detail/file_session.hpp>

namespace tidemark::detail {
namespace {

/// One of several pieces of a commit goes past the page cache from here on; below this, pages and a
/// shared sync are cheaper. On blocks that were set aside when the upload was made every whole
/// block does: to write back pages there, the file system must mark each file's blocks as written,
/// one after the other, within the sync (4 KiB x 64 uploads: 14 k/s against 0.4 k/s).
constexpr std::size_t k_min_direct_bytes = std::size_t{64} << 10;

/// A piece that is the whole commit, and not made of whole blocks, is one write that is stable at
/// its end up to here (64 uploads x 20,000 bytes: 11 k/s against 8 k/s with a write of its own for
/// head, blocks and tail, and a shared sync); above, copying costs more than that.
constexpr std::size_t k_max_cached_stable_bytes = std::size_t{512} << 10;

/// The part of a piece at `offset` that can be written past the page cache.
struct Direct {
  std::size_t head = 0;    // Bytes before it.
  std::size_t middle = 0;  // 0: nothing is.

  Direct(std::uint64_t offset, std::size_t size, std::size_t min_bytes) {
    const std::uint64_t down = offset % k_direct_alignment;
    const auto before = static_cast<std::size_t>(down == 0 ? 0 : k_direct_alignment - down);
    const std::size_t whole = size < before ? 0 : (size - before) / k_direct_alignment;
    if (whole * k_direct_alignment < min_bytes) return;
    head = before;
    middle = whole * k_direct_alignment;
  }
};

WriteSession::Limits limits_of(const StorageOptions& options) {
  return {.lock_timeout = options.lock_timeout, .max_length = options.max_upload_bytes};
}

}  // namespace

FileSession::FileSession(Store& store, const UploadId& id, const WriterOptions& options,
                         const char* operation)
    : WriteSession(store.core, id, options, operation, limits_of(store.options)),
      store_(store),
      durability_(options.durability.value_or(store.options.durability)),
      held_(store, id, operation) {}

Task<UploadState> FileSession::hold(TimePoint deadline) {
  const Store::Running running(store_);
  try {
    co_return co_await held_.take(deadline, stop_token());
  } catch (...) {
    throw_as_storage_error(std::current_exception(), operation(), id().view());
  }
}

Task<void> FileSession::write_piece(std::uint64_t offset, std::span<const std::byte> bytes,
                                    bool alone) {
  const Store::Running running(store_);
  const bool allocated = held_.status().allocated_bytes >= offset + bytes.size();
  const Direct direct(offset, bytes.size(),
                      alone || allocated ? k_direct_alignment : k_min_direct_bytes);
  const auto head = bytes.first(direct.head);
  const auto middle = bytes.subspan(direct.head, direct.middle);
  const auto rest = bytes.subspan(direct.head + direct.middle);
  const bool aligned = middle.size() == bytes.size();
  const bool stable = alone && (aligned || bytes.size() <= k_max_cached_stable_bytes) &&
                      held_.is_rest_stable() && durability_ != Durability::none;
  try {
    if (held_.is_unsettled()) co_await held_.settle();
    if (aligned) {
      co_await write_direct(offset, bytes, stable);
    } else if (stable) {
      co_await held_.file().write_at(offset, bytes, WriteMode::cached_stable);
    } else {
      if (!head.empty()) co_await held_.file().write_at(offset, head, WriteMode::cached);
      if (!middle.empty()) co_await write_direct(offset + head.size(), middle, false);
      if (!rest.empty())
        co_await held_.file().write_at(offset + bytes.size() - rest.size(), rest,
                                       WriteMode::cached);
    }
  } catch (...) {
    throw_as_storage_error(std::current_exception(), operation(), id().view());
  }
  held_.wrote(offset + bytes.size(), stable);
}

Task<void> FileSession::write_direct(std::uint64_t offset, std::span<const std::byte> bytes,
                                     bool stable) {
  const WriteMode mode = stable ? WriteMode::direct_stable : WriteMode::direct;
  Buffer copy;
  if (reinterpret_cast<std::uintptr_t>(bytes.data()) % k_direct_memory_alignment != 0) {
    copy = co_await store_.copies.acquire(bytes.size());
    std::copy(bytes.begin(), bytes.end(), copy.data());
    bytes = copy.bytes();
  }
  co_await held_.file().write_at(offset, bytes, mode);
}

Task<OffsetMove> FileSession::commit_to(std::uint64_t from, std::uint64_t to) {
  const Store::Running running(store_);
  try {
    co_return co_await held_.commit(from, to, durability_);
  } catch (...) {
    throw_as_storage_error(std::current_exception(), operation(), id().view());
  }
}

Task<void> FileSession::confirm() {
  const Store::Running running(store_);
  try {
    co_await held_.confirm(durability_);
  } catch (...) {
    throw_as_storage_error(std::current_exception(), operation(), id().view());
  }
}

}  // namespace tidemark::detail
