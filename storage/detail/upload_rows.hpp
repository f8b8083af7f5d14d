#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <tidemark/engine/environment.hpp>
#include <tidemark/storage/detail/database.hpp>
#include <tidemark/storage/storage.hpp>

namespace tidemark::detail {

/// What the protocols need of a row: no text, no metadata.
struct UploadState {
  std::uint64_t offset = 0;
  std::optional<std::uint64_t> length;  // None while deferred.
  std::optional<SystemTime> expires_at;

  bool completed() const { return length && offset >= *length; }
  bool expired(SystemTime now) const { return !completed() && expires_at && *expires_at <= now; }
};

/// A row to insert.
struct NewUpload {
  UploadId id;
  std::optional<std::uint64_t> length;
  std::uint64_t offset = 0;
  std::string metadata_json;
  std::string metadata_extra;  // Empty: NULL.
  SystemTime created_at;
  std::optional<SystemTime> expires_at;
  std::vector<UploadId> parts;  // Not empty for a concatenation.
};

/// The SQL of table `uploads`, on one connection. See "Disk formats" in the README: columns are
/// selected by name, unknown ones are tolerated.
///
/// Thread safety: one thread at a time. Errors: SqliteError; StorageError (corrupt) for a row that
/// contradicts itself.
class UploadRows {
 public:
  explicit UploadRows(Database database);

  Database& database() { return database_; }
  /// Changes whenever another connection has changed the database.
  std::int64_t data_version();
  /// Whether another file stands at the database's path now.
  bool has_moved();

  std::optional<UploadState> find_state(const UploadId& id);
  std::optional<Upload> find(const UploadId& id);
  std::vector<Upload> list(const std::optional<UploadId>& after, std::size_t limit);
  /// Unfinished uploads that expired at or before `now`, in id order.
  std::vector<UploadId> expired(SystemTime now, const std::optional<UploadId>& after,
                                std::size_t limit);
  /// All ids, in order.
  std::vector<UploadId> ids(const std::optional<UploadId>& after, std::size_t limit);
  /// The sum of the declared lengths of unfinished uploads.
  std::uint64_t reserved_bytes();

  /// False when the id is taken.
  bool insert(const NewUpload& upload);
  /// A5: moves the offset from `expected` to `next`; false when it stands elsewhere.
  bool advance(const UploadId& id, std::uint64_t expected, std::uint64_t next);
  /// Sets a deferred length that is not below the offset; false when there is no such row.
  bool set_length(const UploadId& id, std::uint64_t length);
  bool set_expiry(const UploadId& id, std::optional<SystemTime> expires_at);
  bool set_metadata(const UploadId& id, std::string_view json, std::string_view extra);
  void mark_partial(const UploadId& id);
  bool erase(const UploadId& id);

 private:
  Upload read_upload(Statement& statement, const UploadId& id);
  UploadState read_state(Statement& statement, std::string_view id);

  Database database_;
  Statement data_version_;
  Statement find_state_;
  Statement find_;
  Statement list_;
  Statement expired_;
  Statement ids_;
  Statement reserved_;
  Statement insert_;
  Statement advance_;
  Statement set_length_;
  Statement set_expiry_;
  Statement set_metadata_;
  Statement mark_partial_;
  Statement erase_;
};

}  // namespace tidemark::detail
