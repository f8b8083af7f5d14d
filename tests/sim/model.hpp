#pragma once

#include <cstdint>
#include <list>
#include <map>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include <tidemark/engine/environment.hpp>

#include "history.hpp"
#include "random.hpp"

namespace tidemark::sim {

/// A promise that was broken.
class Violation : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

/// Bytes that somebody wrote, or tried to, from `from` to `to` of an upload. The seed says which.
struct Piece {
  std::uint64_t from = 0;
  std::uint64_t to = 0;
  std::uint64_t seed = 0;
  std::uint64_t shift = 0;  // Byte `at` is that of `at - shift`: of a part that was concatenated.

  std::string bytes() const { return bytes(from, to); }
  std::string bytes(std::uint64_t first, std::uint64_t last) const;
  /// How many of `content`, which begins at `at`, are this piece's.
  std::uint64_t matching(std::string_view content, std::uint64_t at) const;
};

/// What is known of one upload: what was acknowledged must be there, what was tried may be.
struct Upload {
  enum class Presence {
    tried,  // It may be there.
    there,
    maybe_gone,  // Somebody tries to remove it.
    gone,
    spoiled,  // Another implementation's bytes were lost: nobody looks at it any more.
  };

  std::string id;
  Presence presence = Presence::tried;
  std::optional<std::uint64_t> length;
  bool may_have_length = false;             // Somebody told one, and was not answered.
  std::uint64_t least_length = UINT64_MAX;  // Of those.
  History<std::optional<SystemTime>> expiry;
  History<std::string> metadata{"{}"};  // As JSON, what is not text behind it.
  bool is_relabelled = false;           // Somebody sets its expiry or its metadata.
  std::uint64_t durable = 0;            // The highest offset that was acknowledged.
  std::uint64_t believed = 0;           // Where the next append tries.
  bool complete = false;                // That was acknowledged.
  std::string released_to;              // Where the file may be instead.
  bool is_released = false;             // That was acknowledged.
  bool may_be_deleted = false;
  TimePoint last_used{};      // When an operation on it ended.
  unsigned users = 0;         // Operations on it that have not answered.
  unsigned makers = 0;        // Creates of it that have not answered.
  bool has_rivals = false;    // Several creates, at once or one after the other.
  bool is_made = false;       // A create was acknowledged.
  bool maker_failed = false;  // Whether that has made it nobody knows.
  bool is_private = false;    // Only who made it uses it.
  bool is_foreign = false;    // Another implementation makes it.
  bool is_in_doubt = false;   // Its INSERT failed, and left no file: a recovery may find it.
  /// How far another implementation has come, whose bytes are not stable until we make them so.
  std::uint64_t foreign_offset = 0;
  std::vector<Piece> known;  // Acknowledged.
  std::list<Piece> tried;    // May be part of it.

  /// A power cut may have taken bytes below the offset that only a foreign program acknowledged.
  bool has_foreign_tail() const { return durable < foreign_offset; }
  /// Whether bytes that somebody wrote, or tried to, may have completed it.
  bool may_be_complete() const;
  bool may_expire() const { return may_have_expired(SystemTime::max(), expiry.first()); }
  /// By `now`, with an expiry that it may have had from the place `since` on.
  bool may_have_expired(SystemTime now, std::size_t since) const;
  /// Whether another may try to make it as well, and nothing but the outcome of one that makes it
  /// tells what becomes of that.
  bool may_have_rival() const;
  /// Several make it: nobody may remove it, or two of them could.
  bool is_contested() const { return has_rivals && makers > 0; }
  /// What a delete that succeeded says. Beside a create either may have been first.
  void note_deleted() {
    presence = makers > 0 || is_in_doubt ? Presence::maybe_gone : Presence::gone;
  }
  void acknowledge(const Piece& piece);
  void acknowledge_offset(std::uint64_t offset);
  /// Throws unless `content` is what was acknowledged, and else what was tried.
  void check_content(std::string_view content, std::uint64_t from = 0) const;
  /// After a restart: what is there is all there is.
  void settle(std::string_view content);
  [[noreturn]] void fail(const std::string& what) const;

 private:
  /// Gives each part of the content to who wrote it.
  std::vector<Piece> attribute(std::string_view content, std::uint64_t from) const;
};

/// What may be kept under the keys of the URL store: one value that was acknowledged, or any of
/// those that were tried since.
using UrlModel = std::map<std::string, std::set<std::optional<std::string>>>;

/// All uploads there ever were.
class Model {
 public:
  /// With a new id, or that of one that was deleted, as chance has it.
  Upload& add(Random& chance);
  /// But those that another implementation has lost.
  std::vector<Upload*> all();
  Upload* find(std::string_view id);
  UrlModel urls;
  std::set<std::string> busy_keys;  // That somebody changes.
  std::uint64_t new_seed() { return ++seeds_; }

 private:
  std::list<Upload> uploads_;
  std::uint64_t ids_ = 0;
  std::uint64_t seeds_ = 0;
};

}  // namespace tidemark::sim
