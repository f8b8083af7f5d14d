#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

struct sqlite3;

namespace tidemark::crash {

/// Verifies, from the files in a folder alone, what processes on it were promised before they were
/// killed or lost power. It uses nothing of tidemark: plain files and SQLite.
///
/// Processes tell it what they do in records, one a line. Intents, of what may have happened since:
///
///   creating ID LENGTH             LENGTH is -1 while it is deferred
///   trying ID SEED                 test_bytes of SEED, which no other record names, may be in ID
///   measuring ID LENGTH            a deferred length is being told
///   joining ID {PART LENGTH}...    ID is being concatenated of complete parts
///   deleting ID
///   releasing ID                   to the file FOLDER/released/ID
///
/// Acknowledgements, of what must hold from then on:
///
///   created ID LENGTH
///   committed ID FROM TO SEED STATE    the bytes [FROM, TO) are SEED's; STATE: complete or open
///   stands ID OFFSET
///   measured ID LENGTH
///   joined ID
///   deleted ID
///   released ID
///
/// `ready` and `full` mean nothing here, `error TEXT` is a violation. Records of several processes
/// may come in any order. An id is never used again. Not thread-safe. Throws std::runtime_error for
/// a record that it cannot read.
class Checker {
 public:
  explicit Checker(std::filesystem::path folder) : folder_(std::move(folder)) {}

  /// `counts`: false for what was said after the power was cut: intents are all that count then.
  /// Gives whether the record is an acknowledgement that counts.
  bool record(const std::string& line, bool counts = true);
  std::uint64_t acknowledgements() const { return acknowledgements_; }
  void violation(std::string text) { violations_.push_back(std::move(text)); }

  /// Compares the folder, which no process has open, with all that was recorded so far; what it
  /// finds there has to stay, too. Gives all violations since the last check. It also removes what
  /// nobody needs any more: released files that were found right, and files without a row.
  std::vector<std::string> check();

 private:
  struct Piece {
    std::uint64_t to = 0;
    std::uint64_t seed = 0;
  };
  struct Part {
    std::string id;
    std::uint64_t length = 0;
  };
  struct Row {
    std::int64_t length = 0;
    std::uint64_t offset = 0;
    bool completed = false;
  };
  struct Upload {
    bool exists = false;  // That was acknowledged, or seen.
    bool may_be_deleted = false;
    bool may_be_released = false;
    bool is_released = false;  // That was acknowledged.
    bool is_gone = false;      // As well, or was seen. It stays so.
    bool is_complete = false;
    std::uint64_t offset = 0;                   // It is not below.
    std::optional<std::int64_t> length = {};    // Acknowledged; -1 while it is deferred.
    std::set<std::int64_t> lengths = {};        // Tried.
    std::map<std::uint64_t, Piece> known = {};  // By where they begin; acknowledged.
    std::set<std::uint64_t> seeds = {};         // Of bytes that were tried.
    std::vector<Part> parts = {};               // Whose bytes it has instead.
  };
  using Bytes = std::span<const std::byte>;

  /// A violation; false.
  bool wrong(std::string text) {
    violation(std::move(text));
    return false;
  }
  void intend(const std::string& kind, Upload& upload, std::istream& words);
  void acknowledge(const std::string& kind, const std::string& id, Upload& upload,
                   std::istream& words);
  void acknowledge_bytes(const std::string& id, Upload& upload, std::istream& words);

  std::map<std::string, Row> read_rows();
  void check_row(const std::string& id, Upload& upload, const Row& row);
  void check_length(const std::string& id, const Upload& upload, const Row& row);
  void check_gone(const std::string& id, Upload& upload);
  void check_released(const std::string& id, const Upload& upload);
  /// Whether all of `bytes` are those of the upload; why not is a violation. `found`: pieces that
  /// nobody acknowledged.
  bool check_bytes(const std::string& id, const Upload& upload, Bytes bytes,
                   std::map<std::uint64_t, Piece>& found);
  void remove_orphans(const std::map<std::string, Row>& rows);

  const std::filesystem::path folder_;
  std::map<std::string, Upload> uploads_;
  std::uint64_t acknowledgements_ = 0;
  std::vector<std::string> violations_;
};

}  // namespace tidemark::crash
