#include <string>
#include <string_view>
#include <system_error>

#include <tidemark/storage/storage_error.hpp>

namespace tidemark {
namespace {

std::string describe(std::string_view operation, std::string_view upload_id,
                     std::string_view detail) {
  std::string text(operation);
  if (!upload_id.empty()) {
    text.append(" of upload '").append(upload_id).append("'");
  }
  if (!detail.empty()) {
    text.append(": ").append(detail);
  }
  return text;
}

}  // namespace

StorageError::StorageError(Errc code, std::string_view operation, std::string_view upload_id,
                           std::string_view detail)
    : std::system_error(make_error_code(code), describe(operation, upload_id, detail)) {}

}  // namespace tidemark
