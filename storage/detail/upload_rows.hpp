#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <tidemark/engine/environment.hpp>
#include <tidemark/storage/detail/database.hpp>
#include <tidemark/storage/detail/upload_state.hpp>
#include <tidemark/storage/storage.hpp>

namespace tidemark::detail {

/// A row to insert.
struct NewUpload {
  UploadId id;
  std::optional<std::uint64_t> length;
  std::uint64_t offset = 0;
  std::string metadata_json;
  std::string metadata_extra;  // Empty: NULL.
  SystemTime created_at;
  std::optional<SystemTime> expires_at = {};
  std::vector<UploadId> parts = {};  // Not empty for a concatenation.
};

/// Rows in the order of their ids.
struct RowPage {
  std::vector<Upload> uploads;
  std::vector<UploadId> corrupt;  // Rows that contradict themselves.
  std::optional<UploadId> last;   // Of all rows that were looked at; none: there were none.
};

/// How far a search for expired rows has come.
struct ExpiryCursor {
  double day = 0;        // As julianday() counts, then
  std::int64_t row = 0;  // the row's number.
  bool readable_done = false;
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
  /// Also for a row that contradicts itself.
  bool exists(const UploadId& id);
  std::optional<Upload> find(const UploadId& id);
  RowPage list(const std::optional<UploadId>& after, std::size_t limit);
  /// The next unfinished uploads that expired at or before `now`; fewer than `limit` at the end.
  std::vector<UploadId> expired(SystemTime now, ExpiryCursor& cursor, std::size_t limit);
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
  /// Changes nothing, but gives the transaction something to commit.
  void touch();

 private:
  Upload read_upload(Statement& statement, const UploadId& id);
  UploadState read_state(Statement& statement, std::string_view id);
  void add_if_expired(Statement& statement, SystemTime now, ExpiryCursor& cursor,
                      std::vector<UploadId>& ids);

  Database database_;
  Statement data_version_;
  Statement user_version_;
  Statement find_state_;
  Statement find_;
  Statement list_;
  Statement expired_;
  Statement unreadable_expiry_;
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
