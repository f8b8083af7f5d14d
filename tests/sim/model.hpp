#pragma once

#include <cstdint>
#include <list>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include <tidemark/engine/environment.hpp>

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

  char byte(std::uint64_t at) const;
  std::string bytes() const;
};

/// What is known of one upload: what was acknowledged must be there, what was tried may be.
struct Upload {
  enum class Presence {
    tried,  // It may be there.
    there,
    maybe_gone,  // Somebody tries to remove it.
    gone,
  };

  std::string id;
  Presence presence = Presence::tried;
  std::optional<std::uint64_t> length;
  std::optional<SystemTime> expires_at;
  std::uint64_t durable = 0;   // The highest offset that was acknowledged.
  std::uint64_t believed = 0;  // Where the next append tries.
  bool complete = false;       // That was acknowledged.
  std::string released_to;     // Where the file may be instead.
  bool is_released = false;    // That was acknowledged.
  bool may_be_deleted = false;
  std::vector<Piece> known;  // Acknowledged.
  std::list<Piece> tried;    // May be part of it.

  void acknowledge(const Piece& piece);
  void acknowledge_offset(std::uint64_t offset);
  /// Throws unless `content` is what was acknowledged, and else what was tried.
  void check_content(std::string_view content, std::uint64_t from = 0) const;
  /// After a restart: what is there is all there is.
  void settle(std::string_view content);
  [[noreturn]] void fail(const std::string& what) const;

 private:
  const Piece* owner_of(std::uint64_t at) const;
  /// Any piece that was tried and has this byte there.
  const Piece* trial_of(std::uint64_t at, char byte) const;
};

/// All uploads there ever were.
class Model {
 public:
  Upload& add();
  std::vector<Upload*> all();
  std::uint64_t new_seed() { return ++seeds_; }

 private:
  std::list<Upload> uploads_;
  std::uint64_t ids_ = 0;
  std::uint64_t seeds_ = 0;
};

}  // namespace tidemark::sim
