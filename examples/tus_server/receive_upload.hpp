#pragma once

#include <cstdint>

#include <tidemark/storage/sqlite_storage.hpp>

#include "digest.hpp"
#include "request_body.hpp"

namespace tus {

/// Receives `body` into an upload that is to stand at `offset`, and takes the upload over from a
/// connection that still has it. Whatever ends the body, what had arrived without a gap is kept and
/// committed, but for what a take-over finds on its way to the storage; with a digest all of it or
/// nothing. Without one, a long body is committed on the way.
///
/// The answer says where the upload stands; `body.state()` how the body ended, if it was begun.
/// Throws StorageError, as Storage::append.
Awaitable<tidemark::AppendResult> receive_upload(tidemark::SQLiteStorage& storage,
                                                 tidemark::UploadId id, std::uint64_t offset,
                                                 ClientSocket& client, RequestBody& body,
                                                 BodyDigest* digest);

}  // namespace tus
