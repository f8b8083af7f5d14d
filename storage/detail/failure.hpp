#pragma once

#include <exception>
#include <string_view>
#include <system_error>

namespace tidemark::detail {

/// Whether `error` is what a stopped operation throws.
bool is_canceled(const std::exception_ptr& error);

/// Throws `error` as what users are told: SqliteError and std::system_error become a StorageError
/// of `operation` with the code that fits; a StorageError, a cancel and all else stay what they
/// are.
[[noreturn]] void throw_as_storage_error(const std::exception_ptr& error, const char* operation,
                                         std::string_view upload_id);

/// Whether Directory refused to open a name at which no regular file stands.
bool is_no_file(const std::system_error& error);

}  // namespace tidemark::detail
