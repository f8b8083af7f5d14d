#include <algorithm>
#include <exception>
#include <string>
#include <utility>

#include <tidemark/engine/stop.hpp>
#include <tidemark/io/directory.hpp>
#include <tidemark/storage/detail/copy_file.hpp>
#include <tidemark/storage/detail/failure.hpp>
#include <tidemark/storage/detail/whole_upload.hpp>

namespace tidemark::detail {
namespace {

using Bytes = std::vector<std::byte>;

/// All committed bytes.
Task<Bytes> read_whole(Storage& storage, UploadId id, std::uint64_t offset, const char* operation) {
  Bytes bytes = co_await storage.read_file(id, offset);
  if (bytes.size() != offset) {
    throw StorageError(Errc::corrupt, operation, id.view(), "it has fewer bytes than its offset");
  }
  co_return bytes;
}

Task<Upload> require_finished(Storage& storage, UploadId id, const char* operation) {
  Upload upload = co_await require_upload(storage, id, operation);
  if (!upload.completed) {
    throw StorageError(Errc::invalid_argument, operation, id.view(), "it is not complete");
  }
  co_return upload;
}

/// The sum of the parts' lengths, all of them finished.
Task<std::uint64_t> total_length(Storage& storage, const std::vector<UploadId>& parts) {
  std::uint64_t total = 0;
  for (const UploadId& part : parts) {
    const Upload upload = co_await require_finished(storage, part, "concatenate");
    if (*upload.length > Storage::k_max_length - total) {
      throw StorageError(Errc::invalid_argument, "concatenate", part.view(),
                         "the parts are too long together");
    }
    total += *upload.length;
  }
  co_return total;
}

/// Whether the finished `upload` is what the parts make.
Task<bool> consists_of(Storage& storage, const Upload& upload, const std::vector<UploadId>& parts) {
  const Bytes whole = co_await read_whole(storage, upload.id, upload.offset, "concatenate");
  std::size_t position = 0;
  for (const UploadId& part : parts) {
    const Bytes bytes = co_await storage.read_file(part, whole.size() - position);
    if (!std::equal(bytes.begin(), bytes.end(),
                    whole.begin() + static_cast<std::ptrdiff_t>(position))) {
      co_return false;
    }
    position += bytes.size();
  }
  co_return position == whole.size();
}

Task<void> fill_from(Storage& storage, UploadId id, const std::vector<UploadId>& parts,
                     std::uint64_t total) {
  std::uint64_t position = 0;
  for (const UploadId& part : parts) {
    const Bytes bytes = co_await storage.read_file(part, total - position);
    co_await storage.write_chunk(id, position, bytes);
    position += bytes.size();
  }
  if (position != total) {
    throw StorageError(Errc::corrupt, "concatenate", id.view(), "the parts changed meanwhile");
  }
  co_await storage.sync(id);
  co_await storage.update_offset(id, total);
}

Task<void> write_stable(Directory& folder, const std::string& name, const Bytes& bytes) {
  File file = co_await folder.open_file(name.c_str(), Directory::Open::exclusive);
  co_await file.write_at(0, bytes);
  co_await file.sync_data();
  co_await file.close();
}

Task<void> write_file(Storage& storage, std::filesystem::path path, const Bytes& bytes) {
  const std::filesystem::path parent = path.has_parent_path() ? path.parent_path() : ".";
  const std::string to = path.filename().string();
  const std::string temporary = temporary_name(storage.executor().environment());
  Directory folder = co_await Directory::open(parent, false);
  std::exception_ptr error;
  try {
    co_await write_stable(folder, temporary, bytes);
    co_await folder.link_to(temporary.c_str(), folder, to.c_str());
  } catch (...) {
    error = std::current_exception();
  }
  co_await without_stop(folder.unlink(temporary.c_str()));
  if (error) std::rethrow_exception(error);
  co_await folder.sync();
}

Task<void> make(Storage& storage, const Upload& upload, Metadata metadata,
                std::optional<SystemTime> expires_at, const Bytes& bytes) {
  co_await storage.create_upload(upload.id, upload.length, std::move(metadata), expires_at);
  if (bytes.empty()) co_return;
  co_await storage.write_chunk(upload.id, 0, bytes);
  co_await storage.sync(upload.id);
  co_await storage.update_offset(upload.id, bytes.size());
}

}  // namespace

Task<Upload> require_upload(Storage& storage, UploadId id, const char* operation) {
  std::optional<Upload> upload = co_await storage.get_upload(id);
  if (!upload) throw StorageError(Errc::not_found, operation, id.view(), "");
  co_return *std::move(upload);
}

Task<void> join_parts(Storage& storage, UploadId id, std::vector<UploadId> parts,
                      Metadata metadata) {
  const std::uint64_t total = co_await total_length(storage, parts);
  const std::optional<Upload> present = co_await storage.get_upload(id);
  if (present) {
    bool is_same = present->completed && present->offset == total;
    if (is_same) is_same = co_await consists_of(storage, *present, parts);
    if (!is_same) throw StorageError(Errc::already_exists, "concatenate", id.view(), "");
    co_return;
  }
  co_await storage.create_upload(id, total, std::move(metadata));
  if (total == 0) co_return;
  std::exception_ptr error;
  try {
    co_await fill_from(storage, id, parts, total);
  } catch (...) {
    error = std::current_exception();
  }
  if (!error) co_return;
  co_await without_stop(storage.delete_upload(id));
  std::rethrow_exception(error);
}

Task<void> copy_out(Storage& storage, UploadId id, std::filesystem::path path) {
  const Upload upload = co_await require_finished(storage, id, "release");
  const Bytes bytes = co_await read_whole(storage, id, upload.offset, "release");
  std::exception_ptr error;
  try {
    co_await write_file(storage, std::move(path), bytes);
  } catch (...) {
    error = std::current_exception();
  }
  if (error) throw_as_storage_error(error, "release", id.view());
}

Task<void> remake(Storage& storage, Upload upload, Metadata metadata,
                  std::optional<SystemTime> expires_at) {
  if (!upload.metadata_error.empty()) {
    throw StorageError(Errc::corrupt, "change", upload.id.view(), upload.metadata_error);
  }
  const Bytes bytes = co_await read_whole(storage, upload.id, upload.offset, "change");
  co_await storage.delete_upload(upload.id);
  std::exception_ptr error;
  try {
    co_await make(storage, upload, std::move(metadata), expires_at, bytes);
  } catch (...) {
    error = std::current_exception();
  }
  if (!error) co_return;
  co_await storage.delete_upload(upload.id);
  co_await make(storage, upload, upload.metadata, upload.expires_at, bytes);
  std::rethrow_exception(error);
}

}  // namespace tidemark::detail
