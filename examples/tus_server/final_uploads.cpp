#include "final_uploads.hpp"

#include <exception>
#include <span>
#include <system_error>

#include "header_values.hpp"
#include "http_error.hpp"

namespace tus {

using boost::beast::http::status;
using tidemark::AsyncMutex;
using tidemark::Directory;
using tidemark::File;
using tidemark::FileStatus;
using tidemark::Task;
using tidemark::Upload;
using tidemark::UploadId;

namespace {

// What a note ends with: one that a crash cut short was promised to nobody.
constexpr char k_end = '\0';
// How long one that is cut short is left alone.
constexpr std::chrono::hours k_young{1};
// In notes, whatever path the server has.
constexpr std::string_view k_base_path = "/files/";

}  // namespace

Task<std::unique_ptr<FinalUploads>> FinalUploads::open(tidemark::SQLiteStorage& storage,
                                                       std::filesystem::path folder,
                                                       Options options) {
  Directory opened = co_await Directory::open(std::move(folder), true);
  co_return std::unique_ptr<FinalUploads>(new FinalUploads(storage, std::move(opened), options));
}

Task<void> FinalUploads::create(UploadId id, std::vector<UploadId> parts, std::string metadata) {
  const Parts state = co_await look_at(parts);
  if (state.all_complete) {
    const AsyncMutex::Guard alone = co_await join_mutex_.lock();
    co_await storage_.concatenate(id, std::move(parts), parse_metadata(metadata));
  } else {
    const AsyncMutex::Guard alone = co_await notes_mutex_.lock();
    co_await add_note(id, format_concat(parts, k_base_path) + '\n' + metadata);
  }
}

Task<std::optional<Upload>> FinalUploads::find(UploadId id) {
  std::optional<Note> note = co_await find_note(id);
  std::exception_ptr hopeless;
  if (note) {
    Upload upload{id, {}};
    upload.parts = note->parts;
    upload.metadata = parse_metadata(note->metadata);
    upload.expires_at = note->expires_at;
    Parts state;
    try {
      state = co_await look_at(std::move(note->parts));
    } catch (const HttpError&) {
      hopeless = std::current_exception();
    }
    upload.length = state.length;
    const bool has_expired = upload.expires_at && *upload.expires_at <= now();
    if (has_expired || !state.all_complete) co_return upload;
  }
  if (hopeless) {
    const bool removed = co_await remove(id);
    if (removed) std::rethrow_exception(hopeless);
  } else if (note) {
    const AsyncMutex::Guard alone = co_await join_mutex_.lock();
    note = co_await find_note(id);
    if (note) {
      co_await storage_.concatenate(id, std::move(note->parts), parse_metadata(note->metadata));
      co_await folder_.unlink(id.c_str());
      co_await folder_.sync();
    }
  }
  // Joined, here or meanwhile by another, or removed by another.
  co_return co_await storage_.get_upload(id);
}

Task<bool> FinalUploads::remove(UploadId id) {
  const std::optional<FileStatus> note = co_await folder_.status(id.c_str());
  if (!note) co_return false;  // As for most uploads: these wait for no join.
  const AsyncMutex::Guard alone = co_await join_mutex_.lock();
  const bool removed = co_await folder_.unlink(id.c_str());
  if (removed) co_await folder_.sync();
  co_return removed;
}

std::optional<tidemark::SystemTime> FinalUploads::expiry_of(const FileStatus& note) const {
  if (!options_.expire_after) return std::nullopt;
  return note.modified_at + *options_.expire_after;
}

Task<std::size_t> FinalUploads::remove_expired() {
  std::size_t removed = 0;
  if (!options_.expire_after) co_return removed;
  const std::vector<std::string> names = co_await folder_.list();
  for (const std::string& name : names) {
    const AsyncMutex::Guard alone = co_await notes_mutex_.lock();
    const std::optional<FileStatus> status = co_await folder_.status(name.c_str());
    if (!status || *expiry_of(*status) > now()) continue;
    const bool was_there = co_await folder_.unlink(name.c_str());
    if (was_there) ++removed;
  }
  co_return removed;
}

Task<std::size_t> FinalUploads::remove_hopeless() {
  std::size_t removed = 0;
  const std::vector<std::string> names = co_await folder_.list();
  for (const std::string& name : names) {
    const std::optional<UploadId> id = UploadId::parse(name);
    if (!id) continue;
    const AsyncMutex::Guard alone = co_await notes_mutex_.lock();
    const bool hopeless = co_await is_hopeless(*id);
    if (!hopeless) continue;
    const bool was_there = co_await folder_.unlink(name.c_str());
    if (was_there) ++removed;
  }
  co_return removed;
}

Task<bool> FinalUploads::is_hopeless(UploadId id) {
  try {
    std::optional<Note> note = co_await find_note(id);
    if (!note) {  // Another process, which leaves, may be writing it.
      const std::optional<FileStatus> status = co_await folder_.status(id.c_str());
      co_return status && status->modified_at + k_young <= now();
    }
    co_await look_at(std::move(note->parts));
  } catch (const HttpError&) {
    co_return true;
  }
  co_return false;
}

Task<FinalUploads::Parts> FinalUploads::look_at(std::vector<UploadId> parts) {
  Parts state;
  std::uint64_t size = 0;
  for (const UploadId& part : parts) {
    const std::optional<Upload> upload = co_await storage_.get_upload(part);
    if (!upload) throw HttpError(status::not_found, "a part of the final upload is not there");
    state.all_complete = state.all_complete && upload->completed;
    const std::uint64_t length = upload->length.value_or(upload->offset);
    if (length > options_.max_size - size) {
      throw HttpError(status::payload_too_large, "the parts together are above Tus-Max-Size");
    }
    size += length;
    if (!upload->length) state.length.reset();
    if (state.length) state.length = size;
  }
  co_return state;
}

Task<void> FinalUploads::add_note(UploadId id, std::string text) {
  text += k_end;
  File file = co_await folder_.open_file(id.c_str(), Directory::Open::exclusive);
  co_await file.write_at(0, std::as_bytes(std::span(text)));
  co_await file.sync_data();
  co_await folder_.sync();
}

Task<std::optional<FinalUploads::Note>> FinalUploads::find_note(UploadId id) {
  std::string text;
  std::optional<tidemark::SystemTime> expires_at;
  try {
    File file = co_await folder_.open_for_reading(id.c_str());
    const FileStatus status = co_await file.status();
    expires_at = expiry_of(status);
    text.resize(status.size);
    text.resize(co_await file.read_at(0, std::as_writable_bytes(std::span(text))));
  } catch (const std::system_error& error) {
    if (error.code() != std::errc::no_such_file_or_directory) throw;
  }
  if (!text.ends_with(k_end)) co_return std::nullopt;
  text.pop_back();
  const std::size_t line = text.find('\n');
  co_return Note{parse_concat(text.substr(0, line), k_base_path).parts, text.substr(line + 1),
                 expires_at};
}

}  // namespace tus
