#pragma once

#include <string_view>
#include <system_error>

#include <tidemark/storage/errc.hpp>

namespace tidemark {

/// Thrown for what a caller does not expect to happen; code() holds an Errc.
///
/// what() reads "append of upload 'a1b2': fdatasync: Input/output error: input/output error": the
/// operation, the upload, the detail (the system's own error, or which rule was broken), then the
/// meaning of the code. Parts that are empty are left out.
/// Thread safety: as std::system_error; copies share their immutable message.
class StorageError : public std::system_error {
 public:
  /// `operation` names the public operation; `upload_id` may be empty. Nothing is kept by view.
  StorageError(Errc code, std::string_view operation, std::string_view upload_id,
               std::string_view detail);
};

}  // namespace tidemark
