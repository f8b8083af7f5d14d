#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace tidemark {

/// What a client says about its upload: keys with values, in the order in which they were set.
///
/// A value is text, binary bytes, or absent (a flag). Setting a key again replaces its value and
/// keeps its place, as in a Python dict. Keys and text must be UTF-8; a lone surrogate as three
/// bytes (WTF-8) is taken too, because Python can store one, but a surrogate pair as two such
/// sequences is refused, because JSON would read it back as one character.
/// Errors: StorageError (invalid_argument) for a key or text that is not that; nothing is changed.
/// Thread safety: as a standard container. Pointers and iterators live until the next change.
class Metadata {
 public:
  enum class Kind : std::uint8_t { text, binary, flag };

  struct Entry {
    std::string key;
    std::string value;  ///< Text, or the bytes of a binary value; empty for a flag.
    Kind kind = Kind::text;

    friend bool operator==(const Entry&, const Entry&) = default;
  };

  using const_iterator = std::vector<Entry>::const_iterator;

  Metadata() = default;
  /// Keys with text values; a repeated key keeps its first place and its last value.
  Metadata(std::initializer_list<std::pair<std::string_view, std::string_view>> entries);

  void set(std::string_view key, std::string_view text);
  void set_binary(std::string_view key, std::span<const std::byte> bytes);
  /// A key without a value.
  void set_flag(std::string_view key);

  /// The entry of `key`, or null.
  [[nodiscard]] const Entry* find(std::string_view key) const noexcept;

  [[nodiscard]] const_iterator begin() const noexcept { return entries_.begin(); }
  [[nodiscard]] const_iterator end() const noexcept { return entries_.end(); }
  [[nodiscard]] std::size_t size() const noexcept { return entries_.size(); }
  [[nodiscard]] bool empty() const noexcept { return entries_.empty(); }
  /// Bytes of all keys and values together, as they are held here, not as JSON.
  [[nodiscard]] std::size_t byte_size() const noexcept;

  /// All keys and their text, byte for byte as Python's json.dumps writes the same dict. A binary
  /// value and a flag appear as "", so that the order is kept.
  [[nodiscard]] std::string to_json() const;
  /// What to_json() cannot hold: a JSON object of key to null (a flag) or lower-case hexadecimal
  /// (a binary value). Empty when all values are text.
  [[nodiscard]] std::string to_extra_json() const;
  /// Reads what the two above wrote; empty text stands for {}. As in Python, the last value of a
  /// repeated key wins, at the key's first place. An entry of `extra` counts only where `text` has
  /// its key with the value "": whoever changed `text` alone is believed.
  /// Errors: StorageError (corrupt) that says what is wrong, for anything else.
  [[nodiscard]] static Metadata from_json(std::string_view text, std::string_view extra);

  /// Equal when the entries are equal and in the same order.
  friend bool operator==(const Metadata& a, const Metadata& b) { return a.entries_ == b.entries_; }

 private:
  void put(std::string_view key, std::string_view value, Kind kind);
  /// Where `key` is or belongs in by_key_.
  [[nodiscard]] std::size_t position(std::string_view key) const noexcept;

  std::vector<Entry> entries_;
  /// Indices of entries_ ordered by key: a client that sends thousands of keys costs no
  /// quadratic time.
  std::vector<std::size_t> by_key_;
};

}  // namespace tidemark
