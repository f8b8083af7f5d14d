// Any text as a time, against a second reading of ISO 8601 by shapes and the C library's calendar;
// and any number of microseconds as text and back.

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <optional>
#include <string>
#include <string_view>

#include <tidemark/storage/iso8601.hpp>
#include <tidemark/storage/storage_error.hpp>

#include "property.hpp"

using namespace tidemark;
using namespace tidemark::detail;
using namespace tidemark::test;

namespace {

using Microseconds = std::int64_t;

constexpr std::int64_t k_day_seconds = 86'400;
constexpr Microseconds k_second = 1'000'000;
constexpr Microseconds k_first = -62'135'596'800 * k_second;  // 0001-01-01.
constexpr Microseconds k_end = 253'402'300'800 * k_second;    // 10000-01-01.

Microseconds count(Timestamp time) {
  return time.time_since_epoch().count();
}

/// Seconds from 1970 to the beginning of a day; days beyond the month's end go on.
std::int64_t seconds_of(int year, int month, int day) {
  std::tm date{};
  date.tm_year = year - 1900;
  date.tm_mon = month - 1;
  date.tm_mday = day;
  return ::timegm(&date);
}

bool is_leap(int year) {
  return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
}

int days_in(int year, int month) {
  constexpr std::array k_days{31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
  return k_days.at(static_cast<std::size_t>(month - 1)) + (month == 2 && is_leap(year) ? 1 : 0);
}

/// Monday is 0.
int weekday_of(int year, int month, int day) {
  const std::int64_t days = seconds_of(year, month, day) / k_day_seconds;  // A Thursday is day 0.
  return static_cast<int>(((days + 3) % 7 + 7) % 7);
}

int weeks_in(int year) {
  const int new_year = weekday_of(year, 1, 1);
  return new_year == 3 || (new_year == 2 && is_leap(year)) ? 53 : 52;
}

/// Whether `text` has the shape: '9' stands for a digit, all else for itself.
bool has_shape(std::string_view text, std::string_view shape) {
  return text.size() == shape.size() &&
         std::equal(text.begin(), text.end(), shape.begin(), [](char c, char expected) {
           return expected == '9' ? c >= '0' && c <= '9' : c == expected;
         });
}

int number(std::string_view text, std::size_t at, std::size_t digits) {
  return std::stoi(std::string(text.substr(at, digits)));
}

std::size_t digits_from(std::string_view text, std::size_t at) {
  const std::string_view rest = text.substr(std::min(at, text.size()));
  return std::min(rest.find_first_not_of("0123456789"), rest.size());
}

/// How many bytes of `text` are the date, as Python's fromisoformat decides, and ordinal dates.
std::size_t date_bytes(std::string_view text) {
  if (has_shape(text.substr(0, 6), "9999-W")) {
    const bool has_day = text.size() > 9 && text[8] == '-' && digits_from(text, 9) == 1;
    return has_day ? 10 : 8;
  }
  if (has_shape(text.substr(0, 5), "9999W")) {
    const std::size_t digits = digits_from(text, 7);
    if (digits < 2) return 7 + digits;
    return digits % 2 == 0 ? 8 : 7;  // What follows are a separator and pairs of digits.
  }
  if (has_shape(text.substr(0, 8), "9999-999") && digits_from(text, 5) == 3) return 8;
  if (has_shape(text.substr(0, 7), "9999999") && digits_from(text, 0) == 7) return 7;
  return has_shape(text.substr(0, 5), "9999-") ? 10 : 8;
}

std::optional<std::int64_t> read_date(std::string_view text) {
  const int year = has_shape(text.substr(0, 4), "9999") ? number(text, 0, 4) : -1;
  if (year < 0) return std::nullopt;
  const std::size_t dash = text.substr(4, 1) == "-" ? 1 : 0;
  const bool week_day = has_shape(text, "9999-W99-9") || has_shape(text, "9999W999");
  if (week_day || has_shape(text, "9999-W99") || has_shape(text, "9999W99")) {
    const int week = number(text, 5 + dash, 2);
    const int day = week_day ? number(text, text.size() - 1, 1) : 1;
    if (week < 1 || week > weeks_in(year) || day < 1 || day > 7) return std::nullopt;
    const int january_4th = weekday_of(year, 1, 4);
    return seconds_of(year, 1, 4 - january_4th + (week - 1) * 7 + day - 1);
  }
  if (has_shape(text, "9999-999") || has_shape(text, "9999999")) {
    const int day = number(text, 4 + dash, 3);
    if (day < 1 || day > (is_leap(year) ? 366 : 365)) return std::nullopt;
    return seconds_of(year, 1, day);
  }
  if (!has_shape(text, "9999-99-99") && !has_shape(text, "99999999")) return std::nullopt;
  const int month = number(text, 4 + dash, 2);
  const int day = number(text, text.size() - 2, 2);
  if (month < 1 || month > 12 || day < 1 || day > days_in(year, month)) return std::nullopt;
  return seconds_of(year, month, day);
}

/// A time of day, or a distance from UTC without its sign.
std::optional<Microseconds> read_clock(std::string_view text) {
  const std::size_t point = std::min(text.find_first_of(".,"), text.size());
  const std::string_view whole = text.substr(0, point);
  const bool with_seconds = has_shape(whole, "99:99:99") || has_shape(whole, "999999");
  const bool with_minutes = has_shape(whole, "99:99") || has_shape(whole, "9999") || with_seconds;
  if (!with_minutes && !has_shape(whole, "99")) return std::nullopt;
  const std::size_t colon = whole.substr(2, 1) == ":" ? 1 : 0;
  const int hour = number(whole, 0, 2);
  const int minute = with_minutes ? number(whole, 2 + colon, 2) : 0;
  const int second = with_seconds ? number(whole, 4 + 2 * colon, 2) : 0;
  if (hour > 23 || minute > 59 || second > 59) return std::nullopt;
  const Microseconds time = (hour * 3600 + minute * 60 + second) * k_second;
  if (point == text.size()) return time;
  std::string digits(text.substr(point + 1));
  if (!with_seconds || digits.empty() || digits_from(digits, 0) != digits.size()) {
    return std::nullopt;
  }
  digits.resize(6, '0');
  return time + number(digits, 0, 6);
}

std::optional<Microseconds> read_time(std::string_view text) {
  const std::size_t bytes = date_bytes(text);
  const std::optional<std::int64_t> date = read_date(text.substr(0, bytes));
  if (!date) return std::nullopt;
  Microseconds time = *date * k_second;
  if (text.size() > bytes) {
    const auto first = static_cast<unsigned char>(text[bytes]);
    const std::size_t separator = first < 0x80 ? 1 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
    const std::string_view rest = text.substr(std::min(bytes + separator, text.size()));
    const std::size_t zone = std::min(rest.find_first_of("Z+-"), rest.size());
    const std::optional<Microseconds> clock = read_clock(rest.substr(0, zone));
    if (!clock) return std::nullopt;
    time += *clock;
    if (zone < rest.size() && rest.substr(zone) != "Z") {
      const std::optional<Microseconds> distance = read_clock(rest.substr(zone + 1));
      if (rest[zone] == 'Z' || !distance) return std::nullopt;
      time -= rest[zone] == '+' ? *distance : -*distance;
    }
  }
  if (time < k_first || time >= k_end) return std::nullopt;
  return time;
}

/// What is written of a time, by the C library.
std::string expected_text(Microseconds time, char separator, bool is_whole) {
  std::int64_t seconds = time / k_second;
  if (time % k_second < 0) --seconds;
  const Microseconds part = time - seconds * k_second;
  const std::time_t clock = seconds;
  std::tm fields{};
  ::gmtime_r(&clock, &fields);
  std::array<char, 80> text{};
  std::snprintf(text.data(), text.size(), "%04d-%02d-%02d%c%02d:%02d:%02d", fields.tm_year + 1900,
                fields.tm_mon + 1, fields.tm_mday, separator, fields.tm_hour, fields.tm_min,
                fields.tm_sec);
  if (is_whole) return text.data();
  std::array<char, 16> fraction{};
  if (part != 0) std::snprintf(fraction.data(), fraction.size(), ".%06d", static_cast<int>(part));
  return std::string(text.data()) + fraction.data() + "+00:00";
}

void check_written(Timestamp time) {
  const std::string text = format_iso8601(time);
  require(text == expected_text(count(time), 'T', false), "a time is written as the format says");
  require(parse_iso8601(text) == time, "a time that was written reads back");
  const auto second = std::chrono::floor<std::chrono::seconds>(time);
  const std::string created = format_created_at(second);
  require(created == expected_text(count(second), ' ', true), "created_at is as SQLite writes it");
  require(parse_created_at(created) == second, "created_at reads back");
}

/// Writes any number of microseconds: those of the years 1 to 9999 and no others.
void check_number(Microseconds microseconds) {
  const Timestamp time{std::chrono::microseconds(microseconds)};
  const bool in_range = microseconds >= k_first && microseconds < k_end;
  if (in_range) return check_written(time);
  try {
    static_cast<void>(format_iso8601(time));
    require(false, "a year that nobody could read is not written");
  } catch (const StorageError& error) {
    require(error.code() == Errc::invalid_argument, "a year out of range is an invalid argument");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text = as_text(data, size);
  const std::optional<Timestamp> time = parse_iso8601(text);
  const std::optional<Microseconds> expected = read_time(text);
  require(time.has_value() == expected.has_value(), "what is no time is not read, all else is");
  const auto created = parse_created_at(text);
  require(created.has_value() == time.has_value(), "created_at reads the same texts");
  if (time) {
    require(count(*time) == *expected, "a time is read as it is meant");
    require(*created == std::chrono::floor<std::chrono::seconds>(*time), "created_at is cut");
    check_written(*time);
  }
  Microseconds number_of_input = 0;
  std::memcpy(&number_of_input, data, std::min(size, sizeof number_of_input));
  check_number(number_of_input);
  check_number(k_first + (number_of_input & 0x7FFFFFFFFFFFFFFF) % (k_end - k_first));
  return 0;
}
