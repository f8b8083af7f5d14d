#include <algorithm>
#include <array>
#include <string>
#include <string_view>
#include <vector>

#include <sqlite3.h>

#include <tidemark/storage/detail/schema.hpp>
#include <tidemark/storage/storage_error.hpp>

namespace tidemark::detail {
namespace {

/// What the first version of the format has; `offset` is a keyword and so it is quoted.
constexpr const char* k_create_table =
    "CREATE TABLE uploads ("
    "upload_id TEXT PRIMARY KEY, "
    "upload_length INTEGER NOT NULL, "
    "\"offset\" INTEGER DEFAULT 0, "
    "metadata TEXT, "
    "created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP, "
    "completed BOOLEAN DEFAULT 0)";

constexpr const char* k_create_index =
    "CREATE INDEX IF NOT EXISTS uploads_expiring ON uploads (julianday(expires_at)) "
    "WHERE " TIDEMARK_EXPIRING_ROWS;

struct ColumnRule {
  const char* name;
  const char* add;  // How it is added to an older table; null: a table without it is not ours.
  bool takes_null;  // Rows are written with NULL here.
};

constexpr std::array k_columns{
    ColumnRule{"upload_id", nullptr, false},
    ColumnRule{"upload_length", nullptr, false},
    ColumnRule{"offset", nullptr, false},
    ColumnRule{"metadata", "metadata TEXT", false},
    // A default that is not constant cannot be added, and rows are written with a value.
    ColumnRule{"created_at", "created_at TIMESTAMP", false},
    ColumnRule{"completed", "completed BOOLEAN DEFAULT 0", false},
    ColumnRule{"expires_at", "expires_at TIMESTAMP", true},
    ColumnRule{"is_partial", "is_partial BOOLEAN DEFAULT 0", false},
    ColumnRule{"concat_partial_ids", "concat_partial_ids TEXT", true},
    ColumnRule{"metadata_extra", "metadata_extra TEXT", true},
};

struct Column {
  std::string name;
  bool not_null = false;
  bool has_default = false;
  int key_position = 0;  // Counts from 1 in the primary key; 0 outside of it.
};

/// SQLite ignores the case of names.
bool same_name(const std::string& a, const char* b) {
  return sqlite3_stricmp(a.c_str(), b) == 0;
}

/// The columns of `uploads`; none when there is no such table.
std::vector<Column> read_columns(const Database& db) {
  Statement query(db, "SELECT name, \"notnull\", dflt_value, pk FROM pragma_table_info('uploads')");
  std::vector<Column> columns;
  while (query.step()) {
    columns.push_back({std::string(query.text(0)), query.int64(1) != 0, !query.is_null(2),
                       static_cast<int>(query.int64(3))});
  }
  return columns;
}

const Column* find(const std::vector<Column>& columns, const char* name) {
  const auto at =
      std::ranges::find_if(columns, [&](const Column& c) { return same_name(c.name, name); });
  return at == columns.end() ? nullptr : &*at;
}

/// "table", "index", ...; empty when nothing is called `uploads`.
std::string kind_of_uploads(const Database& db) {
  Statement query(db, "SELECT type FROM sqlite_schema WHERE name = 'uploads' COLLATE NOCASE");
  return query.step() ? std::string(query.text(0)) : std::string();
}

bool has_index(const Database& db) {
  Statement query(db, "SELECT 1 FROM sqlite_schema WHERE name = 'uploads_expiring'");
  return query.step();
}

[[noreturn]] void refuse(const Database& db, const std::string& why) {
  const char* const path = sqlite3_db_filename(db.handle(), "main");
  throw StorageError(Errc::corrupt, "open database", "",
                     "'" + std::string(path == nullptr ? "" : path) + "': " + why);
}

void check_columns(const Database& db, const std::vector<Column>& columns) {
  for (const ColumnRule& rule : k_columns) {
    const Column* const column = find(columns, rule.name);
    if (column == nullptr && rule.add == nullptr) {
      refuse(db, std::string("its table uploads has no column ") + rule.name);
    }
    if (column != nullptr && rule.takes_null && column->not_null) {
      refuse(db, "the column " + column->name + " of its table uploads refuses NULL");
    }
  }
  for (const Column& column : columns) {
    const bool is_id = same_name(column.name, "upload_id");
    if (is_id != (column.key_position > 0)) {
      refuse(db, "upload_id is not the primary key of its table uploads");
    }
    const bool written = std::ranges::any_of(
        k_columns, [&](const ColumnRule& rule) { return same_name(column.name, rule.name); });
    if (!written && column.not_null && !column.has_default) {
      refuse(db, "its table uploads wants a value in the unknown column " + column.name);
    }
  }
}

/// Runs `check` and says of a file that SQLite cannot read what it is.
template <class Check>
void refuse_unreadable(const Database& db, Check check) {
  try {
    check();
  } catch (const SqliteError& error) {
    if (error.errc() != Errc::corrupt) throw;
    refuse(db, error.what());
  }
}

/// Whether nothing is missing, which needs no lock to find out.
bool is_complete(const Database& db) {
  const std::vector<Column> columns = read_columns(db);
  const bool has_all = std::ranges::all_of(
      k_columns, [&](const ColumnRule& rule) { return find(columns, rule.name) != nullptr; });
  return has_all && has_index(db);
}

/// Must run inside a transaction that writes, so that no other process does the same meanwhile.
void add_what_is_missing(Database& db) {
  if (kind_of_uploads(db).empty()) db.exec(k_create_table);
  check_schema(db);
  const std::vector<Column> columns = read_columns(db);
  for (const ColumnRule& rule : k_columns) {
    if (find(columns, rule.name) == nullptr) {
      db.exec((std::string("ALTER TABLE uploads ADD COLUMN ") + rule.add).c_str());
    }
  }
  db.exec(k_create_index);
}

}  // namespace

bool is_new_database(const Database& db) {
  bool is_new = false;
  refuse_unreadable(db, [&] { is_new = kind_of_uploads(db).empty(); });
  return is_new;
}

void create_schema(Database& db) {
  bool complete = false;
  refuse_unreadable(db, [&] { complete = is_complete(db); });
  if (complete) return check_schema(db);
  db.exec("BEGIN IMMEDIATE");
  try {
    add_what_is_missing(db);
    db.exec("COMMIT");
  } catch (...) {
    if (db.in_transaction()) db.exec("ROLLBACK");
    throw;
  }
}

void check_schema(const Database& db) {
  refuse_unreadable(db, [&] {
    const std::string kind = kind_of_uploads(db);
    if (kind.empty()) refuse(db, "it has no table uploads");
    if (kind != "table") refuse(db, "its uploads is no table but a kind of " + kind);
    check_columns(db, read_columns(db));
  });
}

}  // namespace tidemark::detail
