#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <tidemark/engine/environment.hpp>

#include "random.hpp"

namespace tidemark::sim {

/// One change of a file's content that a power cut may take back.
struct Change {
  bool is_truncation = false;
  std::uint64_t offset = 0;  // Of a truncation: the new size.
  std::string bytes;
  bool is_cached = false;  // Written to the disk, which may forget it until it is told to flush.
};

/// A file or a folder. `now` is what programs see, `stable` what the next power cut leaves when it
/// drops all of `pending`.
struct File {
  std::uint64_t inode = 0;
  bool is_folder = false;
  std::string now;
  std::string stable;
  std::vector<Change> pending;
  std::uint64_t allocated_bytes = 0;
  SystemTime born_at;
};
using FilePtr = std::shared_ptr<File>;

/// The folder that holds `path`.
std::string parent_of(std::string_view path);

/// A disk with one file system on it. What was not made stable is kept, dropped or torn at a power
/// cut: each write and each change of a name on its own, a write also sector by sector.
///
/// Names are absolute paths. Thread safety: none; a simulation has one thread.
class Disk {
 public:
  static constexpr std::uint64_t k_sector_bytes = 512;

  /// An empty one, with its root folder.
  Disk();

  FilePtr find(const std::string& path) const;
  /// Makes the name, which is free and whose folder is there.
  FilePtr create(const std::string& path, bool is_folder, SystemTime now);
  void link(const FilePtr& file, const std::string& path);
  void unlink(const std::string& path);
  /// Over whatever has the name `to`.
  void rename(const std::string& from, const std::string& to);
  std::vector<std::string> names_in(const std::string& folder) const;
  unsigned links_of(const FilePtr& file) const;

  /// `is_stable`: these bytes survive from now on.
  void write(File& file, std::uint64_t offset, std::string_view bytes, bool is_stable);
  void truncate(File& file, std::uint64_t size);

  void sync(File& file);
  void sync_folder(const std::string& folder);
  /// The disk is not told to flush: XFS tells it only when its log has news.
  void sync_all();
  /// What a sync that fails does: dirty pages count as clean, whether they reached the disk or not.
  void lose_pending(File& file, Random& random);
  void lose_all_pending(Random& random);

  /// What is there when the power goes now, and comes back. Programs of before keep what they see.
  Disk after_power_cut(Random& random) const;

 private:
  struct NameChange {
    std::string folder;
    std::vector<std::pair<std::string, FilePtr>> names;  // Null: the name goes.
  };

  /// Each sync of a file or a folder ends with it.
  void flush();
  void change_names(NameChange change);
  static void apply(std::map<std::string, FilePtr>& names, const NameChange& change);

  std::map<std::string, FilePtr> names_;
  std::map<std::string, FilePtr> stable_names_;
  std::vector<NameChange> pending_names_;
  std::vector<std::weak_ptr<File>> files_;
  std::uint64_t next_inode_ = 1;
};

}  // namespace tidemark::sim
