#pragma once

#include <cstdint>
#include <optional>

#include <tidemark/engine/environment.hpp>

namespace tidemark::detail {

/// What the protocols need of an upload's row: no text, no metadata.
struct UploadState {
  std::uint64_t offset = 0;
  std::optional<std::uint64_t> length = {};  // None while deferred.
  std::optional<SystemTime> expires_at = {};

  bool completed() const { return length && offset >= *length; }
  bool expired(SystemTime now) const { return !completed() && expires_at && *expires_at <= now; }
};

/// What came of a commit: the offset was moved, or it stands elsewhere. The row as it is now.
struct OffsetMove {
  bool moved = false;
  UploadState now = {};
};

}  // namespace tidemark::detail
