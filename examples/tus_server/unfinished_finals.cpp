#include "unfinished_finals.hpp"

#include <span>
#include <system_error>
#include <utility>
#include <vector>

namespace tus {

using tidemark::Directory;
using tidemark::File;
using tidemark::FileStatus;
using tidemark::Task;
using tidemark::UploadId;

namespace {

// What a note ends with: one that a crash cut short was promised to nobody.
constexpr char k_end = '\0';

}  // namespace

Task<UnfinishedFinals> UnfinishedFinals::open(tidemark::Engine& /*its executor*/,
                                              std::filesystem::path folder) {
  Directory opened = co_await Directory::open(std::move(folder), true);
  co_return UnfinishedFinals(std::move(opened));
}

Task<void> UnfinishedFinals::add(UploadId id, std::string note) {
  note += k_end;
  File file = co_await folder_.open_file(id.c_str(), Directory::Open::exclusive);
  co_await file.write_at(0, std::as_bytes(std::span(note)));
  co_await file.sync_data();
  co_await folder_.sync();
}

Task<std::optional<std::string>> UnfinishedFinals::find(UploadId id) {
  std::string note;
  try {
    File file = co_await folder_.open_for_reading(id.c_str());
    const FileStatus status = co_await file.status();
    note.resize(status.size);
    note.resize(co_await file.read_at(0, std::as_writable_bytes(std::span(note))));
  } catch (const std::system_error& error) {
    if (error.code() != std::errc::no_such_file_or_directory) throw;
  }
  if (!note.ends_with(k_end)) co_return std::nullopt;
  note.pop_back();
  co_return note;
}

Task<bool> UnfinishedFinals::remove(UploadId id) {
  const bool removed = co_await folder_.unlink(id.c_str());
  if (removed) co_await folder_.sync();
  co_return removed;
}

Task<std::size_t> UnfinishedFinals::remove_older(tidemark::SystemTime time) {
  std::size_t removed = 0;
  const std::vector<std::string> names = co_await folder_.list();
  for (const std::string& name : names) {
    const std::optional<FileStatus> status = co_await folder_.status(name.c_str());
    if (!status || status->modified_at >= time) continue;
    const bool was_there = co_await folder_.unlink(name.c_str());
    if (was_there) ++removed;
  }
  co_return removed;
}

}  // namespace tus
