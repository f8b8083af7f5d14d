#pragma once

// The files of a storage with uploads in several states, and an input's changes to them.

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unistd.h>
#include <utility>
#include <vector>

#include <sqlite3.h>

#include <tidemark/storage/detail/database.hpp>
#include <tidemark/storage/sqlite_storage.hpp>

#include "file_tools.hpp"
#include "log_checksums.hpp"
#include "one_thread.hpp"
#include "temporary_folder.hpp"

namespace tidemark::test {

/// The files that inputs change, made once and written anew for each input.
///
/// An input is lines of text. A line that is none of these means nothing:
///     db AT HEX              bytes over those of the database at AT, modulo its size
///     wal AT HEX             the same of its log; with any such line the last rows are in the log
///     frame AT HEX           as wal, and then all checksums in the log are right
///     cut NAME SIZE          NAME is db, wal or an upload; beyond its end a file grows by zeros
///     drop NAME              removes the file
///     folder NAME            puts a folder in its place
///     set ID COLUMN VALUE    a cell, before all other changes and only without a log; VALUE is
///                            null, an integer, a real, 'text or xHEX
class DamagedStore {
 public:
  DamagedStore() {
    options_.db_path = folder_ / "uploads.db";
    options_.upload_dir = folder_ / "uploads";
    options_.durability = Durability::none;
    options_.min_free_bytes = 0;
    options_.max_reserved_bytes = std::uint64_t{1} << 40;
    options_.lock_timeout = options_.commit_timeout = std::chrono::seconds(5);
    make();
  }

  /// Opens the storage in an engine that all inputs share.
  Task<std::unique_ptr<SQLiteStorage>> open() {
    return SQLiteStorage::open(engine_.engine(), options_);
  }
  /// Runs a task of the storage.
  template <class T>
  T run(Task<T> task) {
    return engine_.run(std::move(task));
  }
  SystemTime now() { return engine_.engine().environment().system_now(); }

  std::filesystem::path folder() const { return folder_.path(); }
  std::filesystem::path path(std::string_view name) const {
    if (name == "db") return options_.db_path;
    if (name == "wal") return log_path();
    return options_.upload_dir / name;
  }

  /// Puts the files as the input has them. False when bytes of the database were changed, so that
  /// it need not be one anymore.
  bool put(std::string_view input) {
    bool with_log = false;
    for_each_line(input, [&](std::string_view line) {
      const std::string_view what = take_word(line);
      with_log = with_log || what == "wal" || what == "frame";
    });
    put_files(with_log ? open_files_ : closed_files_);
    if (!with_log) set_cells(input);
    bool is_sound = !with_log;
    for_each_line(input, [&](std::string_view line) {
      if (change_file(line)) is_sound = false;
    });
    return is_sound;
  }

  /// The bytes of all data files, by name.
  std::map<std::string, std::string> data_files() const {
    std::map<std::string, std::string> files;
    for (const auto& entry : std::filesystem::directory_iterator(options_.upload_dir)) {
      files[entry.path().filename()] = entry.is_regular_file() ? contents(entry.path()) : "folder";
    }
    return files;
  }

 private:
  using Files = std::map<std::filesystem::path, std::string>;

  std::filesystem::path log_path() const { return folder_ / "uploads.db-wal"; }

  Files read_files() const {
    Files files{{options_.db_path, contents(options_.db_path)}};
    if (std::filesystem::exists(log_path())) files[log_path()] = contents(log_path());
    for (const auto& entry : std::filesystem::directory_iterator(options_.upload_dir)) {
      files[entry.path()] = contents(entry.path());
    }
    return files;
  }

  void put_files(const Files& files) {
    const std::filesystem::directory_iterator entries(folder_.path());
    const std::vector<std::filesystem::directory_entry> left(begin(entries), end(entries));
    for (const auto& entry : left) {
      // The reserve is a megabyte, and no input reaches it.
      if (!entry.path().string().ends_with("-reserve")) std::filesystem::remove_all(entry.path());
    }
    std::filesystem::create_directory(options_.upload_dir);
    for (const auto& [path, bytes] : files) write_contents(path, bytes);
  }

  void make() {
    sqlite3_test_control(SQLITE_TESTCTRL_PRNG_SEED, 1, nullptr);  // The log's salt comes from it.
    {
      detail::Database small(options_.db_path.string(), SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE);
      small.exec("PRAGMA page_size = 512; VACUUM");  // Few bytes that mean nothing.
    }
    const SystemTime past = std::chrono::sys_days(std::chrono::year(2000) / 1 / 1);
    const std::string bytes(300, 'x');
    auto storage = run(open());
    run(storage->create_upload("begun", 100, Metadata{{"filename", "a b.txt"}}));
    run(storage->append("begun", 0, as_bytes(bytes).first(40)));
    run(storage->create_upload("done", 300, Metadata()));
    run(storage->append("done", 0, as_bytes(bytes)));
    run(storage->create_upload("deferred", std::nullopt, Metadata()));
    run(storage->append("deferred", 0, as_bytes(bytes).first(10)));
    run(storage->create_upload("old", 30, Metadata(), past));
    run(storage->create_upload("part", 5, Metadata()));
    run(storage->append("part", 0, as_bytes(bytes).first(5)));
    run(storage->close(std::chrono::seconds(60)));
    storage = run(open());
    std::vector<UploadId> parts{"done", "part"};
    run(storage->concatenate("joined", parts, Metadata()));
    Metadata metadata{{"filename", "\xC3\xA9"}};
    metadata.set_flag("is_confidential");
    metadata.set_binary("digest", as_bytes("\x80\xFF"));
    run(storage->set_metadata("begun", metadata));
    run(storage->create_upload("late", 50, Metadata(), past + std::chrono::days(90'000)));
    run(storage->append("begun", 40, as_bytes(bytes).first(20)));
    write_contents(path("orphan"), "no row");
    open_files_ = read_files();
    run(storage->close(std::chrono::seconds(60)));
    closed_files_ = read_files();
  }

  template <class Function>
  static void for_each_line(std::string_view text, Function function) {
    while (!text.empty()) {
      const std::size_t end = std::min(text.find('\n'), text.size());
      function(text.substr(0, end));
      text.remove_prefix(std::min(end + 1, text.size()));
    }
  }

  static std::string_view take_word(std::string_view& line) {
    const std::string_view word = line.substr(0, line.find(' '));
    line.remove_prefix(std::min(word.size() + 1, line.size()));
    return word;
  }

  static std::optional<std::int64_t> to_number(std::string_view text) {
    std::int64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
    return value;
  }

  static std::string from_hex(std::string_view hex) {
    std::string bytes;
    for (; hex.size() >= 2; hex.remove_prefix(2)) {
      unsigned char byte = 0;
      std::from_chars(hex.data(), hex.data() + 2, byte, 16);
      bytes += static_cast<char>(byte);
    }
    return bytes;
  }

  void set_cells(std::string_view input) {
    std::optional<detail::Database> database;
    for_each_line(input, [&](std::string_view line) {
      if (take_word(line) != "set") return;
      if (!database) {
        database.emplace(options_.db_path.string(), SQLITE_OPEN_READWRITE);
        database->exec("PRAGMA synchronous = OFF");
      }
      const std::string_view id = take_word(line);
      const std::string_view column = take_word(line);
      try {
        set_cell(*database, id, column, line);
      } catch (const detail::SqliteError&) {  // The schema refuses it.
      }
    });
  }

  static void set_cell(detail::Database& database, std::string_view id, std::string_view column,
                       std::string_view value) {
    constexpr std::string_view k_letters = "abcdefghijklmnopqrstuvwxyz_";
    if (column.empty() || column.find_first_not_of(k_letters) != column.npos) return;
    detail::Statement update(
        database, "UPDATE uploads SET \"" + std::string(column) + "\" = ?1 WHERE upload_id = ?2");
    update.bind(2, id);
    const std::string bytes = from_hex(value.substr(std::min<std::size_t>(1, value.size())));
    double real = 0;
    if (const auto number = to_number(value)) {
      update.bind(1, *number);
    } else if (value.starts_with('\'')) {
      update.bind(1, value.substr(1));
    } else if (value.starts_with('x')) {
      update.bind(1, as_bytes(bytes));
    } else if (std::from_chars(value.data(), value.data() + value.size(), real).ptr !=
               value.data()) {
      update.bind(1, real);
    } else if (value != "null") {
      return;
    }
    update.run();
  }

  /// Whether the line changes the database's or its log's bytes.
  bool change_file(std::string_view line) {
    constexpr std::int64_t k_longest = 100'000;
    const std::string_view what = take_word(line);
    const bool mends = what == "frame";
    const bool writes = what == "db" || what == "wal" || mends;
    const std::string_view name = mends ? "wal" : writes ? what : take_word(line);
    const bool is_upload = name != "db" && name != "wal";
    if (is_upload && !UploadId::parse(name)) return false;
    const std::filesystem::path file = path(name);
    std::error_code ignored;
    if (what == "drop" || what == "folder") {
      std::filesystem::remove(file, ignored);
      if (what == "folder") std::filesystem::create_directory(file, ignored);
      return !is_upload;
    }
    if (!std::filesystem::is_regular_file(file)) return false;
    if (writes) {
      overwrite(file, to_number(take_word(line)).value_or(0), from_hex(line), mends);
      return true;
    }
    const std::optional<std::int64_t> size = to_number(line);
    if (what != "cut" || !size || *size < 0) return false;
    std::filesystem::resize_file(file, static_cast<std::uintmax_t>(*size % k_longest), ignored);
    return !is_upload;
  }

  static void overwrite(const std::filesystem::path& file, std::int64_t at,
                        const std::string& bytes, bool mends) {
    std::string all = contents(file);
    if (all.empty()) return;
    const std::size_t place = static_cast<std::uint64_t>(at) % all.size();
    all.replace(place, std::min(bytes.size(), all.size() - place), bytes, 0, all.size() - place);
    if (mends) LogChecksums::mend(all);
    write_contents(file, all);
  }

  TemporaryFolder folder_;
  StorageOptions options_;
  OneThreadEngine engine_;
  Files open_files_;    // With a log.
  Files closed_files_;  // Without one.
};

}  // namespace tidemark::test
