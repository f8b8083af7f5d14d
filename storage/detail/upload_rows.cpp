#include <algorithm>
#include <string>

#include <boost/json.hpp>
#include <sqlite3.h>

#include <tidemark/engine/assert.hpp>
#include <tidemark/storage/detail/json_text.hpp>
#include <tidemark/storage/detail/schema.hpp>
#include <tidemark/storage/detail/upload_rows.hpp>
#include <tidemark/storage/iso8601.hpp>
#include <tidemark/storage/storage_error.hpp>

namespace tidemark::detail {
namespace {

constexpr const char* k_columns =
    "SELECT upload_length, \"offset\", expires_at, upload_id, metadata, metadata_extra, "
    "created_at, is_partial, concat_partial_ids FROM uploads ";

// Rows whose names are none of ours cannot be operated on; another program made them. A blob is
// greater than any text, and of a text with a zero GLOB and length() see what is before it.
#define TIDEMARK_NAMED_ROWS                                                   \
  "typeof(upload_id) = 'text' AND upload_id NOT GLOB '*[^A-Za-z0-9_-]*' AND " \
  "length(upload_id) BETWEEN 1 AND 64 AND instr(upload_id, char(0)) = 0"

// A time as SQLite counts it reads back within a millisecond, so the index only narrows the rows
// down; the exact time decides in C++, as it does for text that SQLite cannot read. In the order of
// the index, where a row number ends each entry.
constexpr const char* k_expired =
    "SELECT upload_length, \"offset\", expires_at, upload_id, rowid, julianday(expires_at) "
    "FROM uploads WHERE " TIDEMARK_EXPIRING_ROWS " AND " TIDEMARK_NAMED_ROWS
    " AND julianday(expires_at) BETWEEN ?1 AND ?2 ORDER BY julianday(expires_at), rowid";
constexpr const char* k_unreadable_expiry =
    "SELECT upload_length, \"offset\", expires_at, upload_id, rowid FROM uploads "
    "WHERE " TIDEMARK_EXPIRING_ROWS " AND " TIDEMARK_NAMED_ROWS
    " AND julianday(expires_at) IS NULL AND rowid > ?1 ORDER BY rowid";

constexpr double k_julian_day_of_epoch = 2440587.5;
constexpr double k_julian_slack_days = 0.01 / 86400.0;

double julian_day(SystemTime time) {
  const std::chrono::duration<double, std::ratio<86400>> days = time.time_since_epoch();
  return k_julian_day_of_epoch + days.count();
}

std::string join_ids(const std::vector<UploadId>& ids) {
  std::string json = "[";
  for (const UploadId& id : ids) {
    if (json.size() > 1) json += ", ";
    append_json_string(json, id.view());
  }
  return json + "]";
}

/// The ids in a JSON array; none when it is not one, since other implementations may differ.
std::vector<UploadId> split_ids(std::string_view json) {
  std::vector<UploadId> ids;
  boost::json::error_code error;
  const boost::json::value value = boost::json::parse(json, error);
  if (error || !value.is_array()) return ids;
  for (const boost::json::value& element : value.get_array()) {
    const auto id = element.is_string() ? UploadId::parse(std::string_view(element.get_string()))
                                        : std::nullopt;
    if (!id) return {};
    ids.push_back(*id);
  }
  return ids;
}

std::optional<std::string> format_optional(const std::optional<SystemTime>& time) {
  if (!time) return std::nullopt;
  return format_iso8601(*time);
}

/// Bound also where there is none: a statement whose binding failed keeps what was bound before.
std::optional<std::string_view> null_if_empty(std::string_view text) {
  if (text.empty()) return std::nullopt;
  return text;
}

/// The text to search from: every id is greater than the empty text.
std::string_view start_of(const std::optional<UploadId>& after) {
  return after ? after->view() : std::string_view();
}

}  // namespace

UploadRows::UploadRows(Database database)
    : database_(std::move(database)),
      data_version_(database_, "PRAGMA data_version"),
      user_version_(database_, "PRAGMA user_version"),
      find_state_(database_,
                  "SELECT upload_length, \"offset\", expires_at FROM uploads WHERE upload_id = ?1"),
      find_(database_, std::string(k_columns) + "WHERE upload_id = ?1"),
      list_(database_, std::string(k_columns) + "WHERE upload_id > ?1 AND " TIDEMARK_NAMED_ROWS
                                                " ORDER BY upload_id LIMIT ?2"),
      expired_(database_, k_expired),
      unreadable_expiry_(database_, k_unreadable_expiry),
      reserved_(database_,
                "SELECT TOTAL(upload_length) FROM uploads "  // SUM fails when it overflows.
                "WHERE upload_length > 0 AND \"offset\" < upload_length"),
      insert_(database_, k_insert_upload),
      advance_(database_,
               "UPDATE uploads SET \"offset\" = ?1, "
               "completed = (upload_length >= 0 AND ?1 >= upload_length), "
               "expires_at = CASE WHEN upload_length >= 0 AND ?1 >= upload_length THEN NULL "
               "ELSE expires_at END WHERE upload_id = ?2 AND \"offset\" = ?3 "
               "AND (upload_length < 0 OR ?1 <= upload_length)"),
      set_length_(database_,
                  "UPDATE uploads SET upload_length = ?1, completed = (\"offset\" >= ?1), "
                  "expires_at = CASE WHEN \"offset\" >= ?1 THEN NULL ELSE expires_at END "
                  "WHERE upload_id = ?2 AND upload_length < 0 AND \"offset\" <= ?1"),
      set_expiry_(database_,
                  "UPDATE uploads SET expires_at = CASE WHEN upload_length >= 0 AND "
                  "\"offset\" >= upload_length THEN NULL ELSE ?1 END WHERE upload_id = ?2"),
      set_metadata_(database_,
                    "UPDATE uploads SET metadata = ?1, metadata_extra = ?2 WHERE upload_id = ?3"),
      mark_partial_(database_, "UPDATE uploads SET is_partial = 1 WHERE upload_id = ?1"),
      erase_(database_, "DELETE FROM uploads WHERE upload_id = ?1") {}

std::int64_t UploadRows::data_version() {
  const StatementReset reset(data_version_);
  const bool row = data_version_.step();
  TIDEMARK_ASSERT(row, "PRAGMA data_version answers one row");
  return data_version_.int64(0);
}

void UploadRows::touch() {
  const StatementReset reset(user_version_);
  const bool row = user_version_.step();
  TIDEMARK_ASSERT(row, "PRAGMA user_version answers one row");
  const std::string same = "PRAGMA user_version = " + std::to_string(user_version_.int64(0));
  database_.exec(same.c_str());
}

bool UploadRows::has_moved() {
  int moved = 0;
  sqlite3_file_control(database_.handle(), "main", SQLITE_FCNTL_HAS_MOVED, &moved);
  return moved != 0;
}

UploadState UploadRows::read_state(Statement& statement, std::string_view id) {
  UploadState state;
  if (!statement.is_integer(0) || !statement.is_integer(1)) {
    throw StorageError(Errc::corrupt, "read of row", id, "its length or its offset is no integer");
  }
  const std::int64_t length = statement.int64(0);
  const std::int64_t offset = statement.int64(1);
  if (length >= 0) state.length = static_cast<std::uint64_t>(length);
  if (offset < 0 || (length >= 0 && offset > length)) {
    throw StorageError(Errc::corrupt, "read of row", id,
                       "offset " + std::to_string(offset) + " of length " + std::to_string(length));
  }
  state.offset = static_cast<std::uint64_t>(offset);
  if (!statement.is_null(2)) state.expires_at = parse_iso8601(statement.text(2));
  return state;
}

std::optional<UploadState> UploadRows::find_state(const UploadId& id) {
  const StatementReset reset(find_state_);
  find_state_.bind(1, id.view());
  if (!find_state_.step()) return std::nullopt;
  return read_state(find_state_, id.view());
}

bool UploadRows::exists(const UploadId& id) {
  const StatementReset reset(find_state_);
  find_state_.bind(1, id.view());
  return find_state_.step();
}

std::optional<Upload> UploadRows::find(const UploadId& id) {
  const StatementReset reset(find_);
  find_.bind(1, id.view());
  if (!find_.step()) return std::nullopt;
  return read_upload(find_, id);
}

Upload UploadRows::read_upload(Statement& statement, const UploadId& id) {
  const UploadState state = read_state(statement, id.view());
  Upload upload{.id = id, .length = state.length, .offset = state.offset};
  upload.completed = state.completed();
  upload.expires_at = state.expires_at;
  try {
    upload.metadata = Metadata::from_json(statement.text(4), statement.text(5));
  } catch (const StorageError& error) {
    upload.metadata_error = error.what();
  }
  upload.created_at = parse_created_at(statement.text(6)).value_or(std::chrono::sys_seconds{});
  upload.is_partial = statement.int64(7) != 0;
  if (!statement.is_null(8)) upload.parts = split_ids(statement.text(8));
  return upload;
}

RowPage UploadRows::list(const std::optional<UploadId>& after, std::size_t limit) {
  const StatementReset reset(list_);
  list_.bind(1, start_of(after));
  list_.bind(2, limit);
  RowPage page;
  while (list_.step()) {
    const std::optional<UploadId> id = UploadId::parse(list_.text(3));
    const std::optional<UploadId>& before = page.last ? page.last : after;
    // Whoever asks for page after page would never see the end of a damaged index.
    if (!id || (before && *id <= *before)) {
      throw StorageError(Errc::corrupt, "list", "", "the ids are not in their order");
    }
    page.last = id;
    try {
      page.uploads.push_back(read_upload(list_, *id));
    } catch (const StorageError&) {
      page.corrupt.push_back(*id);
    }
  }
  return page;
}

std::vector<UploadId> UploadRows::expired(SystemTime now, ExpiryCursor& cursor, std::size_t limit) {
  std::vector<UploadId> ids;
  if (!cursor.readable_done) {
    const StatementReset reset(expired_);
    expired_.bind(1, cursor.day);
    expired_.bind(2, julian_day(now) + k_julian_slack_days);
    while (ids.size() < limit && expired_.step()) {
      const double day = expired_.real(5);
      if (day == cursor.day && expired_.int64(4) <= cursor.row) continue;  // Seen before.
      cursor.day = day;
      add_if_expired(expired_, now, cursor, ids);
    }
    if (ids.size() == limit) return ids;
    cursor = {.readable_done = true};
  }
  const StatementReset reset(unreadable_expiry_);
  unreadable_expiry_.bind(1, cursor.row);
  while (ids.size() < limit && unreadable_expiry_.step()) {
    add_if_expired(unreadable_expiry_, now, cursor, ids);
  }
  return ids;
}

void UploadRows::add_if_expired(Statement& statement, SystemTime now, ExpiryCursor& cursor,
                                std::vector<UploadId>& ids) {
  cursor.row = statement.int64(4);
  const std::optional<UploadId> id = UploadId::parse(statement.text(3));
  if (!id) return;
  try {
    if (read_state(statement, id->view()).expired(now)) ids.push_back(*id);
  } catch (const StorageError&) {  // What contradicts itself stays for `sweep` to report.
  }
}

std::uint64_t UploadRows::reserved_bytes() {
  const StatementReset reset(reserved_);
  const bool row = reserved_.step();
  TIDEMARK_ASSERT(row, "a sum is one row");
  return static_cast<std::uint64_t>(reserved_.int64(0));
}

bool UploadRows::insert(const NewUpload& upload) {
  insert_.bind(1, upload.id.view());
  insert_.bind(2, upload.length ? static_cast<std::int64_t>(*upload.length) : -1);
  insert_.bind(3, upload.offset);
  insert_.bind(4, upload.metadata_json);
  insert_.bind(5, format_created_at(std::chrono::floor<std::chrono::seconds>(upload.created_at)));
  insert_.bind(6, format_optional(upload.expires_at));
  insert_.bind(7, false);
  insert_.bind(8, upload.parts.empty() ? std::nullopt : std::optional(join_ids(upload.parts)));
  insert_.bind(9, null_if_empty(upload.metadata_extra));
  try {
    insert_.run();
  } catch (const SqliteError& error) {
    if (error.code() == SQLITE_CONSTRAINT_PRIMARYKEY) return false;
    throw;
  }
  return true;
}

bool UploadRows::advance(const UploadId& id, std::uint64_t expected, std::uint64_t next) {
  TIDEMARK_ASSERT(next >= expected, "an offset never goes back");
  advance_.bind(1, next);
  advance_.bind(2, id.view());
  advance_.bind(3, expected);
  advance_.run();
  return database_.changes() == 1;
}

bool UploadRows::set_length(const UploadId& id, std::uint64_t length) {
  set_length_.bind(1, length);
  set_length_.bind(2, id.view());
  set_length_.run();
  return database_.changes() == 1;
}

bool UploadRows::set_expiry(const UploadId& id, std::optional<SystemTime> expires_at) {
  set_expiry_.bind(1, format_optional(expires_at));
  set_expiry_.bind(2, id.view());
  set_expiry_.run();
  return database_.changes() == 1;
}

bool UploadRows::set_metadata(const UploadId& id, std::string_view json, std::string_view extra) {
  set_metadata_.bind(1, json);
  set_metadata_.bind(2, null_if_empty(extra));
  set_metadata_.bind(3, id.view());
  set_metadata_.run();
  return database_.changes() == 1;
}

void UploadRows::mark_partial(const UploadId& id) {
  mark_partial_.bind(1, id.view());
  mark_partial_.run();
}

bool UploadRows::erase(const UploadId& id) {
  erase_.bind(1, id.view());
  erase_.run();
  return database_.changes() == 1;
}

}  // namespace tidemark::detail
