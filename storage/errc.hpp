#pragma once

#include <system_error>

namespace tidemark {

/// What a storage operation can fail with, carried by StorageError.
///
/// The codes belong to the error category "tidemark" and compare equal to the std::errc
/// condition named beside them, so that generic code need not know this enum. The numbers are
/// part of the interface: they never change, new ones are added at the end.
/// Thread safety: everything here is immutable.
enum class Errc {
  not_found = 1,         ///< No such upload. errc::no_such_file_or_directory.
  already_exists = 2,    ///< The upload id is taken. errc::file_exists.
  length_exceeded = 3,   ///< Bytes beyond the declared length. errc::file_too_large.
  already_complete = 4,  ///< The upload has all its bytes and takes no more.
  expired = 5,           ///< The upload's expiry has passed.
  invalid_argument = 6,  ///< The caller broke a stated rule. errc::invalid_argument.
  lock_timeout = 7,      ///< Another writer held the upload for too long. errc::timed_out.
  no_space = 8,          ///< The disk is full. errc::no_space_on_device.
  quota_exceeded = 9,    ///< A bound of StorageOptions would be exceeded.
  corrupt = 10,          ///< What is stored contradicts itself; nothing was changed.
  io_error = 11,         ///< The system failed an operation. errc::io_error.
  busy = 12,             ///< The database stayed locked. errc::device_or_resource_busy.
  shutting_down = 13,    ///< The storage is closing and takes no new work.
};

/// The category of every Errc; lives as long as the program.
[[nodiscard]] const std::error_category& storage_category() noexcept;

/// Found by argument-dependent look-up when an Errc becomes a std::error_code.
[[nodiscard]] std::error_code make_error_code(Errc code) noexcept;

}  // namespace tidemark

template <>
struct std::is_error_code_enum<tidemark::Errc> : std::true_type {};
