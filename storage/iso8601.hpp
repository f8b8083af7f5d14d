#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <string_view>

namespace tidemark::detail {

// Points in time as text, for the columns expires_at and created_at. All of them are UTC.
// Thread safety: functions without state.

using Timestamp = std::chrono::sys_time<std::chrono::microseconds>;

/// Reads the forms of ISO 8601 that Python 3.11's datetime.fromisoformat reads, and ordinal dates:
///   date  YYYY-MM-DD, YYYYMMDD, YYYY-Www[-D], YYYYWww[D], YYYY-DDD, YYYYDDD
///   time  HH[:MM[:SS[.fraction]]], HH[MM[SS[.fraction]]], with '.' or ','
///   zone  Z, +HH[:MM[:SS[.fraction]]] or with '-', with or without colons
/// with any one character between date and time. No time is midnight, no zone is UTC. A fraction is
/// cut to microseconds. Nothing for anything else, and for years outside 1 to 9999 in UTC.
[[nodiscard]] std::optional<Timestamp> parse_iso8601(std::string_view text) noexcept;

/// YYYY-MM-DDTHH:MM:SS[.ffffff]+00:00, the fraction left out when it is zero.
/// Errors: StorageError (invalid_argument) for years outside 1 to 9999, which nobody could read.
[[nodiscard]] std::string format_iso8601(Timestamp time);

/// Reads YYYY-MM-DD HH:MM:SS, and what parse_iso8601() reads, cut to seconds.
[[nodiscard]] std::optional<std::chrono::sys_seconds> parse_created_at(
    std::string_view text) noexcept;

/// YYYY-MM-DD HH:MM:SS, as SQLite's CURRENT_TIMESTAMP. Errors: as format_iso8601().
[[nodiscard]] std::string format_created_at(std::chrono::sys_seconds time);

}  // namespace tidemark::detail
