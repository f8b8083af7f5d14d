#include <algorithm>

#include <tidemark/storage/detail/stable_files.hpp>

namespace tidemark::detail {

const StableFiles::Entry* StableFiles::find(const UploadId& id, const FileStatus& file) const {
  const auto at = entries_.find(id);
  return at != entries_.end() && at->second.is_of(file) ? &at->second : nullptr;
}

bool StableFiles::covers(const UploadId& id, const FileStatus& file, std::uint64_t offset) const {
  const Entry* const entry = find(id, file);
  return entry != nullptr && !entry->poisoned && entry->offset == offset;
}

void StableFiles::note(const UploadId& id, const FileStatus& file, std::uint64_t offset) {
  if (entries_.size() >= k_max_files && !entries_.contains(id)) {
    const auto any =
        std::ranges::find_if(entries_, [](auto& each) { return !each.second.poisoned; });
    if (any != entries_.end()) entries_.erase(any);
  }
  entries_.insert_or_assign(id, Entry{file.device, file.inode, file.born_at, offset});
}

void StableFiles::note_chunk(const UploadId& id) {
  const auto at = entries_.find(id);
  if (at != entries_.end()) at->second.has_chunks = true;
}

bool StableFiles::has_chunks(const UploadId& id, const FileStatus& file) const {
  const Entry* const entry = find(id, file);
  return entry != nullptr && entry->has_chunks;
}

void StableFiles::poison(const UploadId& id, const FileStatus& file) {
  entries_.insert_or_assign(id, Entry{file.device, file.inode, file.born_at, 0, true});
}

bool StableFiles::is_poisoned(const UploadId& id, const FileStatus& file) const {
  const Entry* const entry = find(id, file);
  return entry != nullptr && entry->poisoned;
}

}  // namespace tidemark::detail
