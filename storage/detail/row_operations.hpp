#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <vector>

#include <tidemark/storage/detail/store.hpp>

namespace tidemark::detail {

// Operations of SQLiteStorage on an upload that is there. Errors: as Storage says.

Task<std::optional<Upload>> find_upload(Store& store, UploadId id);
Task<UploadPage> list(Store& store, std::optional<UploadId> after, std::size_t limit);
Task<std::vector<UploadId>> find_expired(Store& store);
Task<std::vector<std::byte>> read_beginning(Store& store, UploadId id, std::size_t max_bytes);

Task<void> set_length(Store& store, UploadId id, std::uint64_t length);
Task<void> set_expiry(Store& store, UploadId id, std::optional<SystemTime> expires_at);
Task<void> set_metadata(Store& store, UploadId id, Metadata metadata);

Task<void> write_chunk(Store& store, UploadId id, std::uint64_t offset,
                       std::span<const std::byte> bytes);
Task<void> sync_file(Store& store, UploadId id);
Task<void> raise_offset(Store& store, UploadId id, std::uint64_t offset);
Task<bool> move_offset(Store& store, UploadId id, std::uint64_t expected, std::uint64_t next);

}  // namespace tidemark::detail
