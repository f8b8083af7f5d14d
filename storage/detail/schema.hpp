#pragma once

#include <tidemark/storage/detail/database.hpp>

namespace tidemark::detail {

// The table `uploads` as other implementations of the format make and read it, and the columns that
// tidemark adds. Thread safety: as Database.

/// Rows that can expire: the condition of the partial index on julianday(expires_at), for string
/// literals. A query must repeat these words, joined to others with AND, so that SQLite can use the
/// index; and it must not ask for another order, or SQLite will not.
#define TIDEMARK_EXPIRING_ROWS \
  "expires_at IS NOT NULL AND (upload_length < 0 OR \"offset\" < upload_length)"

/// Inserts a row, with its values in this order. `completed` is derived from the others.
inline constexpr const char* k_insert_upload =
    "INSERT INTO uploads (upload_id, upload_length, \"offset\", metadata, created_at, expires_at, "
    "is_partial, concat_partial_ids, metadata_extra, completed) "
    "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?2 >= 0 AND ?3 >= ?2)";

/// Whether there is no table of uploads yet. Errors: StorageError (corrupt) when the file is no
/// database.
bool is_new_database(const Database& db);

/// Makes the table in a new database, and adds what an older one lacks, in one transaction of its
/// own. A database that has everything is only read; one that check_schema() refuses is unchanged.
/// Errors: as check_schema().
void create_schema(Database& db);

/// Errors: StorageError (corrupt) that says what is wrong, when the file is no database, when it
/// has no table `uploads` that rows can be read from by id, length and offset, or when that table
/// refuses rows of the format. SqliteError for what does not concern the schema, such as busy.
void check_schema(const Database& db);

}  // namespace tidemark::detail
