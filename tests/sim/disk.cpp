#include "disk.hpp"

#include <algorithm>
#include <utility>

#include <tidemark/engine/assert.hpp>

namespace tidemark::sim {
namespace {

void put(std::string& content, std::uint64_t offset, std::string_view bytes) {
  if (content.size() < offset + bytes.size()) content.resize(offset + bytes.size());
  content.replace(offset, bytes.size(), bytes);
}

void apply(std::string& content, const Change& change) {
  if (change.is_truncation) {
    content.resize(change.offset);
  } else {
    put(content, change.offset, change.bytes);
  }
}

/// What a power cut leaves of one change.
void apply_by_chance(std::string& content, const Change& change, Random& random) {
  enum { keep, drop, tear };
  const std::uint64_t fate = random.below(3);
  if (fate == drop) return;
  if (fate == keep || change.is_truncation) return apply(content, change);
  const std::uint64_t end = change.offset + change.bytes.size();
  for (std::uint64_t at = change.offset; at < end;) {
    const std::uint64_t next =
        std::min(end, (at / Disk::k_sector_bytes + 1) * Disk::k_sector_bytes);
    const auto sector = std::string_view(change.bytes).substr(at - change.offset, next - at);
    if (random.once_in(2)) put(content, at, sector);
    at = next;
  }
}

/// What is left of all that is pending: often everything or nothing, since writes reach a disk
/// together.
void apply_by_chance(std::string& content, const std::vector<Change>& pending, Random& random) {
  enum { all, none, each };
  const std::uint64_t fate = random.below(3);
  if (fate == none) return;
  for (const Change& change : pending) {
    if (fate == all) {
      apply(content, change);
    } else {
      apply_by_chance(content, change, random);
    }
  }
}

/// Makes pending changes of the size stable: they are the journal's, which keeps its order.
void settle_size(File& file) {
  std::vector<Change> left;
  for (Change& change : file.pending) {
    if (!change.is_truncation) {
      left.push_back(std::move(change));
      continue;
    }
    const std::uint64_t size = change.offset;
    file.stable.resize(size);
    for (Change& earlier : left) {
      earlier.bytes.resize(
          std::min<std::uint64_t>(earlier.bytes.size(), size - std::min(size, earlier.offset)));
    }
  }
  std::erase_if(left, [](const Change& change) { return change.bytes.empty(); });
  file.pending = std::move(left);
}

/// Makes stable what is in the disk's cache.
void settle_cached(File& file) {
  std::erase_if(file.pending, [&](const Change& change) {
    if (change.is_cached) apply(file.stable, change);
    return change.is_cached;
  });
}

/// Takes the bytes from `begin` to `end` out of what is pending: newer ones are stable there.
void supersede(std::vector<Change>& pending, std::uint64_t begin, std::uint64_t end) {
  std::vector<Change> left;
  for (Change& change : pending) {
    const std::uint64_t change_end = change.offset + change.bytes.size();
    if (change.is_truncation || change_end <= begin || end <= change.offset) {
      left.push_back(std::move(change));
      continue;
    }
    if (change.offset < begin) {
      left.push_back(
          {false, change.offset, change.bytes.substr(0, begin - change.offset), change.is_cached});
    }
    if (end < change_end) {
      left.push_back({false, end, change.bytes.substr(end - change.offset), change.is_cached});
    }
  }
  pending = std::move(left);
}

}  // namespace

std::string parent_of(std::string_view path) {
  const std::size_t slash = path.rfind('/');
  return std::string(slash == 0 ? "/" : path.substr(0, slash));
}

Disk::Disk() {
  create("/", true, SystemTime());
  stable_names_ = names_;
  pending_names_.clear();
}

FilePtr Disk::find(const std::string& path) const {
  const auto at = names_.find(path);
  return at == names_.end() ? nullptr : at->second;
}

FilePtr Disk::create(const std::string& path, bool is_folder, SystemTime now) {
  auto file = std::make_shared<File>();
  file->inode = next_inode_++;
  file->is_folder = is_folder;
  file->born_at = now;
  files_.push_back(file);
  change_names({parent_of(path), {{path, file}}});
  return file;
}

void Disk::link(const FilePtr& file, const std::string& path) {
  change_names({parent_of(path), {{path, file}}});
}

void Disk::unlink(const std::string& path) {
  change_names({parent_of(path), {{path, nullptr}}});
}

void Disk::rename(const std::string& from, const std::string& to) {
  change_names({parent_of(to), {{from, nullptr}, {to, find(from)}}});
}

std::vector<std::string> Disk::names_in(const std::string& folder) const {
  std::vector<std::string> names;
  for (const auto& [path, file] : names_) {
    if (path != "/" && parent_of(path) == folder) names.push_back(path.substr(path.rfind('/') + 1));
  }
  return names;
}

void Disk::change_names(NameChange change) {
  apply(names_, change);
  pending_names_.push_back(std::move(change));
}

void Disk::apply(std::map<std::string, FilePtr>& names, const NameChange& change) {
  for (const auto& [path, file] : change.names) {
    names.erase(path);
    if (file != nullptr) names.emplace(path, file);
  }
}

unsigned Disk::links_of(const FilePtr& file) const {
  const auto count =
      std::ranges::count_if(names_, [&](const auto& name) { return name.second == file; });
  return static_cast<unsigned>(count);
}

void Disk::write(File& file, std::uint64_t offset, std::string_view bytes, bool is_stable) {
  put(file.now, offset, bytes);
  file.allocated_bytes = std::max<std::uint64_t>(file.allocated_bytes, file.now.size());
  if (is_stable) {
    settle_size(file);
    supersede(file.pending, offset, offset + bytes.size());
    put(file.stable, offset, bytes);
  } else {
    file.pending.push_back({false, offset, std::string(bytes)});
  }
}

void Disk::truncate(File& file, std::uint64_t size) {
  file.now.resize(size);
  file.pending.push_back({true, size, {}});
}

void Disk::sync(File& file) {
  for (const Change& change : file.pending) sim::apply(file.stable, change);
  file.pending.clear();
  flush();
}

void Disk::flush() {
  for (const auto& each : files_) {
    if (const FilePtr file = each.lock()) settle_cached(*file);
  }
}

void Disk::sync_folder(const std::string& folder) {
  std::erase_if(pending_names_, [&](const NameChange& change) {
    if (change.folder != folder) return false;
    apply(stable_names_, change);
    return true;
  });
  flush();
}

void Disk::sync_all() {
  std::erase_if(files_, [](const std::weak_ptr<File>& file) { return file.expired(); });
  for (const auto& each : files_) {
    const FilePtr file = each.lock();
    if (file == nullptr) continue;
    for (Change& change : file->pending) change.is_cached = true;
  }
  stable_names_ = names_;
  pending_names_.clear();
}

void Disk::lose_pending(File& file, Random& random) {
  settle_cached(file);  // The kernel does not hold it any more.
  settle_size(file);
  apply_by_chance(file.stable, file.pending, random);
  file.pending.clear();
}

void Disk::lose_all_pending(Random& random) {
  for (const auto& each : files_) {
    if (const FilePtr file = each.lock()) lose_pending(*file, random);
  }
}

Disk Disk::after_power_cut(Random& random) const {
  Disk left;
  left.next_inode_ = next_inode_;
  left.files_.clear();
  std::map<std::string, FilePtr> names = stable_names_;
  for (const NameChange& change : pending_names_) {
    if (random.once_in(2)) apply(names, change);
  }
  // Sorted, so that a folder comes before what is in it.
  std::erase_if(names, [&](const auto& name) {
    return name.first != "/" && !names.contains(parent_of(name.first));
  });
  std::map<const File*, FilePtr> copies;
  for (auto& [path, file] : names) {
    FilePtr& copy = copies[file.get()];
    if (copy == nullptr) {
      copy = std::make_shared<File>();
      copy->inode = file->inode;
      copy->is_folder = file->is_folder;
      copy->born_at = file->born_at;
      copy->stable = file->stable;
      apply_by_chance(copy->stable, file->pending, random);
      copy->now = copy->stable;
      copy->allocated_bytes = copy->now.size();
      left.files_.push_back(copy);
    }
    file = copy;
  }
  left.names_ = names;
  left.stable_names_ = std::move(names);
  return left;
}

}  // namespace tidemark::sim
