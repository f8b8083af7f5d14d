#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <tidemark/engine/assert.hpp>
#include <tidemark/storage/storage_error.hpp>
#include <tidemark/storage/upload_id.hpp>

namespace tidemark {
namespace {

// Spelled out, because std::isalnum depends on the locale.
bool is_allowed(char c) noexcept {
  return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' ||
         c == '-';
}

}  // namespace

std::optional<UploadId> UploadId::parse(std::string_view text) noexcept {
  if (text.empty() || text.size() > k_max_bytes || !std::ranges::all_of(text, is_allowed)) {
    return std::nullopt;
  }
  UploadId id;
  std::ranges::copy(text, id.text_.begin());
  id.size_ = static_cast<std::uint8_t>(text.size());
  TIDEMARK_ASSERT(id.text_[id.size_] == '\0', "an upload id ends with a zero");
  return id;
}

UploadId::UploadId(std::string_view text) {
  const std::optional<UploadId> id = parse(text);
  if (!id) {
    // The text is not repeated: it comes from outside and may be long or unprintable.
    throw StorageError(Errc::invalid_argument, "upload id", "",
                       "it must be 1 to 64 characters of A-Z, a-z, 0-9, '_' and '-'");
  }
  *this = *id;
}

UploadId::UploadId(const std::string& text) : UploadId(std::string_view(text)) {}

UploadId::UploadId(const char* text) : UploadId(std::string_view(text)) {}

}  // namespace tidemark
