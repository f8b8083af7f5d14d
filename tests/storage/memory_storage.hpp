#pragma once

// A backend of Storage's first group of operations and nothing else: what a user would write, and
// what shows that the second group needs no more.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <tidemark/engine/sleep_for.hpp>
#include <tidemark/storage/storage.hpp>

namespace tidemark::test {

/// Uploads in memory, gone with the object. Every operation lets others run once, where it can be
/// stopped, and is then done in one piece.
class MemoryStorage final : public Storage {
 public:
  /// All uploads together, then `no_space`.
  static constexpr std::uint64_t k_max_bytes = std::uint64_t{64} << 20;

  using Storage::Storage;

  /// Called by every operation with its name, before it does anything; may throw.
  std::function<void(std::string_view)> before = [](std::string_view) {};
  /// This operation does nothing until it is asked to stop.
  std::string hangs_in;

  Task<void> create_upload(UploadId id, std::optional<std::uint64_t> length, Metadata metadata,
                           std::optional<SystemTime> expires_at) override {
    co_await begin("create");
    require(!length || *length <= k_max_length, Errc::invalid_argument, id);
    require(!uploads_.contains(id), Errc::already_exists, id);
    const SystemTime now = executor().environment().system_now();
    Upload facts{.id = id,
                 .length = length,
                 .offset = 0,
                 .metadata = std::move(metadata),
                 .metadata_error = {},
                 .created_at = std::chrono::floor<std::chrono::seconds>(now),
                 .expires_at = expires_at,
                 .completed = length == 0,
                 .is_partial = false,
                 .parts = {}};
    uploads_.emplace(id, Stored{std::move(facts), {}});
  }

  Task<std::optional<Upload>> get_upload(UploadId id) override {
    co_await begin("get");
    const auto at = uploads_.find(id);
    std::optional<Upload> upload;
    if (at != uploads_.end()) upload = at->second.facts;
    co_await schedule();  // The answer is on its way, and may be old when it comes.
    co_return upload;
  }

  Task<void> update_offset(UploadId id, std::uint64_t offset) override {
    co_await begin("update");
    require(offset <= k_max_length, Errc::invalid_argument, id);
    Stored& stored = find(id);
    if (offset <= stored.facts.offset) co_return;
    require(offset <= stored.facts.length.value_or(k_max_length), Errc::length_exceeded, id);
    require(offset <= stored.bytes.size(), Errc::corrupt, id);
    stored.facts.offset = offset;
    stored.facts.completed = stored.facts.length == offset;
  }

  Task<void> set_length(UploadId id, std::uint64_t length) override {
    co_await begin("set length");
    Upload& facts = find(id).facts;
    require(!facts.length && length >= facts.offset && length <= k_max_length,
            Errc::invalid_argument, id);
    facts.length = length;
    facts.completed = length == facts.offset;
  }

  Task<void> delete_upload(UploadId id) override {
    co_await begin("delete");
    uploads_.erase(id);
  }

  Task<void> write_chunk(UploadId id, std::uint64_t offset,
                         std::span<const std::byte> bytes) override {
    co_await begin("write");
    require(offset <= k_max_length, Errc::invalid_argument, id);
    Stored& stored = find(id);
    require(offset >= stored.facts.offset, Errc::invalid_argument, id);
    const std::uint64_t length = stored.facts.length.value_or(k_max_length);
    require(offset <= length && bytes.size() <= length - offset, Errc::length_exceeded, id);
    const std::uint64_t end = offset + bytes.size();
    require(end <= k_max_bytes, Errc::no_space, id);
    if (stored.bytes.size() < end) stored.bytes.resize(end);
    std::copy(bytes.begin(), bytes.end(),
              stored.bytes.begin() + static_cast<std::ptrdiff_t>(offset));
  }

  Task<void> sync(UploadId id) override {
    co_await begin("sync");
    find(id);
  }

  Task<std::vector<std::byte>> read_file(UploadId id, std::size_t max_bytes) override {
    co_await begin("read");
    const Stored& stored = find(id);
    const std::size_t count = std::min<std::size_t>(max_bytes, stored.facts.offset);
    co_return std::vector(stored.bytes.begin(),
                          stored.bytes.begin() + static_cast<std::ptrdiff_t>(count));
  }

  std::filesystem::path get_file_path(UploadId id) const override {
    return std::filesystem::path("memory") / id.view();
  }

  Task<UploadPage> list_uploads(std::optional<UploadId> after, std::size_t limit) override {
    co_await begin("list");
    UploadPage page;
    auto at = after ? uploads_.upper_bound(*after) : uploads_.begin();
    for (; at != uploads_.end() && page.uploads.size() < limit; ++at) {
      page.uploads.push_back(at->second.facts);
    }
    if (at != uploads_.end()) page.next = page.uploads.back().id;
    co_return page;
  }

  Task<std::vector<UploadId>> get_expired_uploads() override {
    co_await begin("get expired");
    co_return expired();
  }

  Task<std::size_t> cleanup_expired_uploads() override {
    co_await begin("cleanup");
    std::size_t count = 0;
    for (const UploadId& id : expired()) {
      if (!is_in_use(id)) count += uploads_.erase(id);
    }
    co_return count;
  }

 private:
  struct Stored {
    Upload facts;
    std::vector<std::byte> bytes;  // Also those that were written and not committed.
  };

  Task<void> begin(std::string_view operation) {
    co_await schedule();
    before(operation);
    if (operation == hangs_in) co_await sleep_for(std::chrono::hours(1000));
  }

  static void require(bool condition, Errc error, const UploadId& id) {
    if (!condition) throw StorageError(error, "memory storage", id.view(), "");
  }

  Stored& find(const UploadId& id) {
    const auto at = uploads_.find(id);
    require(at != uploads_.end(), Errc::not_found, id);
    return at->second;
  }

  std::vector<UploadId> expired() {
    const SystemTime now = executor().environment().system_now();
    std::vector<UploadId> ids;
    for (const auto& [id, stored] : uploads_) {
      const Upload& facts = stored.facts;
      if (!facts.completed && facts.expires_at && *facts.expires_at <= now) ids.push_back(id);
    }
    return ids;
  }

  std::map<UploadId, Stored> uploads_;
};

}  // namespace tidemark::test
