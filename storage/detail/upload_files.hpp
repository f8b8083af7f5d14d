#pragma once

#include <filesystem>
#include <optional>
#include <string_view>
#include <vector>

#include <tidemark/storage/detail/held_upload.hpp>

namespace tidemark::detail {

// Operations of SQLiteStorage that make and remove uploads. Errors: as Storage says.

/// The row of a new upload. Throws `invalid_argument` or `quota_exceeded` for what the options
/// forbid.
NewUpload new_row(const Store& store, const UploadId& id, std::optional<std::uint64_t> length,
                  const Metadata& metadata, std::optional<SystemTime> expires_at);
/// Throws `quota_exceeded` when the texts are longer than the options allow.
void check_metadata(const Store& store, const UploadId& id, std::string_view json,
                    std::string_view extra);

/// Throws `quota_exceeded` when `bytes` more would be promised to unfinished uploads than the
/// options allow.
void check_reserved(UploadRows& rows, const Store& store, const UploadId& id, std::uint64_t bytes,
                    const char* operation);

/// Makes the file, its name stable, and then the row.
Task<void> create(Store& store, NewUpload upload);

/// An empty file, locked, at a name that no row has. Throws `already_exists`, `lock_timeout`.
Task<FileLock> make_file(Store& store, UploadId id, const char* operation);
/// Awaits `fill`, makes the name of the file stable and inserts the row; what fails removes the
/// file. Throws `already_exists`, `quota_exceeded`.
Task<void> add_upload(Store& store, const NewUpload& upload, FileLock& file, Task<void> fill,
                      const char* operation);

/// Asks the present writer to end; before all who wait for the upload, removes the row, durably,
/// and the file.
Task<void> erase(Store& store, UploadId id);

/// Removes the file of an upload whose row is gone, and tells who waits for the upload.
Task<void> erase_file(Store& store, const UploadId& id, HeldUpload& held);

/// Deletes the expired uploads that nobody is writing, in batches; gives how many.
Task<std::size_t> erase_expired(Store& store);

Task<SweepReport> sweep(Store& store, SweepOptions options);

/// Makes a finished upload of the files of its parts.
Task<void> join_files(Store& store, NewUpload upload);

/// Gives the finished file to the application under another name.
Task<void> release_file(Store& store, UploadId id, std::filesystem::path path);

}  // namespace tidemark::detail
