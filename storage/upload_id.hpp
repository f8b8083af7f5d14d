#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace tidemark {

/// The name of an upload: 1 to 64 characters of [A-Za-z0-9_-].
///
/// The only way to hold one is to have passed that check, so a file name made from it can neither
/// leave its folder nor surprise the file system. A value type of 66 bytes that never allocates.
/// Ordered by bytes, as SQLite orders the upload_id column.
/// Thread safety: as a plain value. Lifetime: view() and c_str() live as long as the id.
class UploadId {
 public:
  static constexpr std::size_t k_max_bytes = 64;

  /// The id spelled by `text`, or nothing when `text` breaks the rule.
  [[nodiscard]] static std::optional<UploadId> parse(std::string_view text) noexcept;

  /// Implicit, so that an operation can be called with a string.
  /// Throws StorageError (invalid_argument) when `text` breaks the rule.
  UploadId(std::string_view text);    // NOLINT(google-explicit-constructor)
  UploadId(const std::string& text);  // NOLINT(google-explicit-constructor)
  UploadId(const char* text);         // NOLINT(google-explicit-constructor)

  [[nodiscard]] std::string_view view() const noexcept { return {text_.data(), size_}; }
  /// The same characters, terminated by a zero.
  [[nodiscard]] const char* c_str() const noexcept { return text_.data(); }

  friend bool operator==(const UploadId&, const UploadId&) = default;
  friend std::strong_ordering operator<=>(const UploadId&, const UploadId&) = default;

 private:
  UploadId() = default;

  std::array<char, k_max_bytes + 1> text_{};  // Zero-padded, so comparing it compares the ids.
  std::uint8_t size_ = 0;
};

}  // namespace tidemark

template <>
struct std::hash<tidemark::UploadId> {
  std::size_t operator()(const tidemark::UploadId& id) const noexcept {
    return std::hash<std::string_view>{}(id.view());
  }
};
