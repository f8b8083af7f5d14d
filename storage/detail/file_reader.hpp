#pragma once

#include <tidemark/storage/detail/store.hpp>
#include <tidemark/storage/upload_reader.hpp>

namespace tidemark::detail {

/// Opens the upload's file for reading. Throws `not_found`, and `corrupt` when the file is missing.
Task<std::unique_ptr<UploadReader>> open_file_reader(Store& store, UploadId id);

}  // namespace tidemark::detail
