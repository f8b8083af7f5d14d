#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <tidemark/storage/metadata.hpp>
#include <tidemark/storage/upload_id.hpp>

namespace tidemark {

/// A snapshot of one upload, as get_upload and list_uploads answer it.
///
/// A plain value: it does not change when the upload does. Sizes are in bytes, times in UTC.
/// Whoever builds one derives `completed` as (length && offset >= *length), never from storage.
struct Upload {
  UploadId id;
  /// Empty while the length is deferred.
  std::optional<std::uint64_t> length;
  /// Bytes below it are committed.
  std::uint64_t offset = 0;
  Metadata metadata{};
  /// Empty, unless the stored metadata could not be read: then why, and `metadata` is empty.
  std::string metadata_error{};
  std::chrono::sys_seconds created_at{};  // The epoch when what is stored cannot be read.
  /// Empty when the upload never expires, or what is stored cannot be read.
  std::optional<std::chrono::sys_time<std::chrono::microseconds>> expires_at{};
  bool completed = false;
  /// It has been a part of a concatenation, or another implementation has marked it as one.
  bool is_partial = false;
  /// What a concatenated upload was made of, in order; else empty.
  std::vector<UploadId> parts{};
};

}  // namespace tidemark
