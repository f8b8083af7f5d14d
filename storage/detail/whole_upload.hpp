#pragma once

#include <filesystem>
#include <optional>
#include <vector>

#include <tidemark/engine/task.hpp>
#include <tidemark/storage/storage.hpp>

namespace tidemark::detail {

// Defaults of Storage that move whole uploads through memory, because a backend's own operations
// read only from the beginning. The caller has the turn of every upload that is named.

/// Storage::concatenate. What was begun is deleted again after an error.
Task<void> join_parts(Storage& storage, UploadId id, std::vector<UploadId> parts,
                      Metadata metadata);

/// Storage::release_to without the end of the upload: its bytes are stable at `path`, where nothing
/// was, under no other name there, and never in part.
Task<void> copy_out(Storage& storage, UploadId id, std::filesystem::path path);

/// Makes `upload` anew with these facts; after an error, with its old ones.
Task<void> remake(Storage& storage, Upload upload, Metadata metadata,
                  std::optional<SystemTime> expires_at);

/// The upload, or throws `not_found`.
Task<Upload> require_upload(Storage& storage, UploadId id, const char* operation);

}  // namespace tidemark::detail
