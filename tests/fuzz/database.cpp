// A storage whose files an input has changed, see damaged_store.hpp: every operation gives a result
// or a StorageError, and no byte that was committed is changed by one that is not to remove it.

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <filesystem>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <tidemark/storage/storage_error.hpp>

#include "damaged_store.hpp"
#include "property.hpp"

using namespace tidemark;
using namespace tidemark::test;
using namespace std::chrono_literals;
namespace fs = std::filesystem;

namespace {

constexpr std::string_view k_new_bytes = "bytes that an append adds";
const std::vector<UploadId> k_ids{"begun", "done", "deferred", "old", "part", "joined", "late"};

DamagedStore& files() {
  static DamagedStore the_files;
  return the_files;
}

/// Of the last task that threw.
std::string last_error;

/// The result of a task; nothing when it throws a StorageError. Anything else that it throws ends
/// the process.
template <class T>
auto attempt(Task<T> task) {
  if constexpr (std::is_void_v<T>) {
    try {
      files().run(std::move(task));
      return true;
    } catch (const StorageError& error) {
      last_error = error.what();
      return false;
    }
  } else {
    try {
      return std::optional<T>(files().run(std::move(task)));
    } catch (const StorageError& error) {
      last_error = error.what();
      return std::optional<T>();
    }
  }
}

bool same(const Upload& a, const Upload& b) {
  return a.id == b.id && a.length == b.length && a.offset == b.offset && a.metadata == b.metadata &&
         a.metadata_error == b.metadata_error && a.created_at == b.created_at &&
         a.expires_at == b.expires_at && a.completed == b.completed &&
         a.is_partial == b.is_partial && a.parts == b.parts;
}

/// One input's storage, from its opening to its end.
class Run {
 public:
  /// `changed` is the upload that meets the operations which change one.
  Run(bool is_sound, const UploadId& changed) : is_sound_(is_sound), changed_(changed) {}

  void all() {
    const auto before = files().data_files();
    if (!open()) {
      require(files().data_files() == before, "an open that fails changes no upload");
      return;
    }
    look();
    require(files().data_files() == before, "looking changes no upload");
    for (const UploadId& id : k_ids) append(id);
    change();
    sweep();
    require(attempt(storage_->close(60s)), "a storage closes");
    storage_.reset();
    if (open()) {
      check_acknowledged();
      end();
      attempt(storage_->close(60s));
    }
  }

 private:
  bool open() {
    auto opened = attempt(files().open());
    if (!opened && is_sound_) std::fprintf(stderr, "open: %s\n", last_error.c_str());
    require(opened.has_value() || !is_sound_, "a sound database opens, whatever its cells hold");
    if (opened) storage_ = std::move(*opened);
    return opened.has_value();
  }

  std::optional<Upload> get(const UploadId& id) {
    return attempt(storage_->get_upload(id)).value_or(std::nullopt);
  }

  /// Whether the file of an upload begins with these bytes.
  static bool begins_with(const UploadId& id, const std::string& bytes) {
    const fs::path path = files().path(id.view());
    return fs::is_regular_file(path) && contents(path).starts_with(bytes);
  }

  /// Everything that only reads.
  void look() {
    for (const UploadId& id : k_ids) {
      const std::optional<Upload> upload = get(id);
      const auto bytes = attempt(storage_->read_file(
          id, upload ? upload->offset : std::numeric_limits<std::size_t>::max()));
      if (!bytes || !upload) continue;
      require(bytes->size() == upload->offset, "what is read ends at the offset");
      std::string& known = acknowledged_[id];
      known.assign(reinterpret_cast<const char*>(bytes->data()), bytes->size());
      require(begins_with(id, known), "what is read is what the file holds");
    }
    list();
    attempt(storage_->get_expired_uploads());
    attempt(storage_->sweep({.min_age = 0s, .dry_run = true}));
  }

  void list() {
    const auto all = attempt(storage_->list_uploads(std::nullopt, 1000));
    require(all.has_value() || !is_sound_, "a sound database is listed");
    if (!all) return;
    std::vector<Upload> paged;
    std::optional<UploadId> after;
    do {
      const auto page = attempt(storage_->list_uploads(after, 1));
      if (!page) break;
      require(!page->next || !after || *page->next > *after, "a list goes forward, and so it ends");
      paged.insert(paged.end(), page->uploads.begin(), page->uploads.end());
      after = page->next;
    } while (after);
    if (!is_sound_) return;
    require(std::ranges::equal(all->uploads, paged, same), "pages are parts of the whole list");
    for (const Upload& upload : all->uploads) {
      const std::optional<Upload> alone = get(upload.id);
      require(alone && same(*alone, upload), "an upload is listed as it is answered");
    }
    for (const UploadId& id : k_ids) {
      const bool listed = std::ranges::find(all->uploads, id, &Upload::id) != all->uploads.end();
      require(listed == get(id).has_value(), "every upload is listed");
    }
  }

  void append(const UploadId& id) {
    const auto known = acknowledged_.find(id);
    const std::optional<Upload> upload = get(id);
    const std::size_t room = upload && upload->length
                                 ? static_cast<std::size_t>(*upload->length - upload->offset)
                                 : k_new_bytes.size();
    const std::string_view bytes = k_new_bytes.substr(0, room);
    const fs::path path = files().path(id.view());
    const std::uintmax_t size = fs::is_regular_file(path) ? fs::file_size(path) : 0;
    const auto result = attempt(storage_->append(id, upload ? upload->offset : 0, as_bytes(bytes)));
    const bool expired = upload && upload->expires_at && *upload->expires_at <= files().now();
    if (is_sound_ && known != acknowledged_.end() && !upload->completed && !expired) {
      require(result && result->status == AppendStatus::committed,
              "an append where the upload stands is committed");
    }
    if (known != acknowledged_.end()) {
      require(begins_with(id, known->second), "an append keeps the committed bytes");
    }
    if (!result || result->status != AppendStatus::committed) return;
    require(upload && upload->offset <= size, "no append builds on bytes that are not there");
    if (known == acknowledged_.end()) return;
    require(result->offset == upload->offset + bytes.size(), "an append answers where it ended");
    known->second += bytes;
    require(begins_with(id, known->second), "what an append acknowledged is in the file");
  }

  /// Operations that change rows, or files beyond the committed bytes.
  void change() {
    attempt(storage_->set_metadata(changed_, Metadata{{"new", "metadata"}}));
    attempt(storage_->set_expiry(changed_, SystemTime()));
    attempt(storage_->set_length(changed_, 1000));
    attempt(storage_->write_chunk(changed_, 900, as_bytes(k_new_bytes)));
    attempt(storage_->sync(changed_));
    attempt(storage_->update_offset(changed_, 910));
    attempt(storage_->update_offset_atomic(changed_, 910, 920));
    attempt(storage_->create_upload("orphan", 10, Metadata()));
    attempt(storage_->create_upload("new", 10, Metadata{{"key", "value"}}, SystemTime()));
    attempt(storage_->concatenate("joined", {"done", "part"}, Metadata()));
    attempt(storage_->concatenate("again", {"done", "joined"}, Metadata()));
    attempt(storage_->backup(files().folder() / "backup.db"));
    for (const auto& [id, bytes] : acknowledged_) {
      require(begins_with(id, bytes), "no change changes committed bytes");
    }
  }

  void sweep() {
    std::vector<UploadId> present;
    for (const UploadId& id : k_ids) {
      if (get(id) && fs::exists(files().path(id.view()))) present.push_back(id);
    }
    const auto report = attempt(storage_->sweep({.min_age = 0s}));
    require(report.has_value() || !is_sound_, "a sound database is swept");
    for (const UploadId& id : present) {
      require(fs::exists(files().path(id.view())), "no upload that has a row is swept away");
    }
  }

  /// After it was opened anew.
  void check_acknowledged() {
    for (const auto& [id, bytes] : acknowledged_) {
      require(begins_with(id, bytes), "committed bytes stay");
      const std::optional<Upload> upload = get(id);
      require(!is_sound_ || (upload && upload->offset >= bytes.size()), "a committed offset stays");
    }
  }

  /// Operations that remove uploads.
  void end() {
    attempt(storage_->cleanup_expired_uploads());
    attempt(storage_->release_to("part", files().folder() / "released"));
    for (const UploadId& id : k_ids) {
      const bool is_folder = fs::is_directory(files().path(id.view()));
      const bool deleted = attempt(storage_->delete_upload(id));
      require(deleted || is_folder || !is_sound_, "an upload of a sound database can be deleted");
      require(!deleted || !fs::exists(files().path(id.view())), "a deleted upload has no file");
    }
  }

  const bool is_sound_;
  const UploadId changed_;
  std::unique_ptr<SQLiteStorage> storage_;
  std::map<UploadId, std::string> acknowledged_;  // Bytes that were answered as committed.
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const bool is_sound = files().put(as_text(data, size));
  const fs::path path = files().path("db");
  const std::string before = fs::is_regular_file(path) ? contents(path) : "";
  // SQLite takes a single byte for an empty file.
  const bool is_database = before.size() < 2 || before.starts_with("SQLite format 3");
  const bool has_log = fs::exists(files().path("wal"));
  Run(is_sound, k_ids[size % k_ids.size()]).all();
  if (!is_database && !has_log) {
    require(contents(path) == before, "a file that is no database stays");
  }
  return 0;
}
