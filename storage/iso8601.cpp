#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <optional>
#include <string>
#include <string_view>

#include <tidemark/storage/iso8601.hpp>
#include <tidemark/storage/storage_error.hpp>

namespace tidemark::detail {
namespace {

using std::chrono::days;
using std::chrono::hours;
using std::chrono::microseconds;
using std::chrono::minutes;
using std::chrono::seconds;
using std::chrono::sys_days;
using std::chrono::year;

constexpr sys_days k_first_day{year{1} / 1 / 1};
constexpr sys_days k_day_after_last{year{10000} / 1 / 1};

bool in_range(Timestamp time) noexcept {
  return time >= k_first_day && time < k_day_after_last;
}

bool is_digit(char c) noexcept {
  return c >= '0' && c <= '9';
}

std::size_t leading_digits(std::string_view text) noexcept {
  return static_cast<std::size_t>(std::ranges::find_if_not(text, is_digit) - text.begin());
}

/// Takes exactly `count` digits off `rest`.
std::optional<int> take_digits(std::string_view& rest, std::size_t count) noexcept {
  if (leading_digits(rest.substr(0, count)) != count) {
    return std::nullopt;
  }
  int value = 0;
  for (const char digit : rest.substr(0, count)) {
    value = value * 10 + (digit - '0');
  }
  rest.remove_prefix(count);
  return value;
}

bool take(std::string_view& rest, char c) noexcept {
  if (!rest.starts_with(c)) {
    return false;
  }
  rest.remove_prefix(1);
  return true;
}

/// The rest of a week date, after its 'W'. ISO week 1 is the one that holds January 4th.
std::optional<sys_days> take_week_date(std::string_view& rest, year y, bool extended) noexcept {
  const std::optional<int> week = take_digits(rest, 2);
  if (!week) {
    return std::nullopt;
  }
  int weekday = 1;
  // A '-' before two digits is not a weekday's: it stands between the date and the hour.
  const std::string_view day = extended && rest.starts_with('-') ? rest.substr(1) : rest;
  // Without any '-', a separator that is a digit and pairs of digits may follow: Python counts
  // them.
  const std::size_t digits = leading_digits(day);
  const bool has_weekday = extended ? day.size() < rest.size() && digits == 1
                                    : digits == 1 || (digits > 0 && digits % 2 == 0);
  if (has_weekday) {
    weekday = day.front() - '0';
    rest = day.substr(1);
  }
  const sys_days january_4th{y / 1 / 4};
  const sys_days week_1 = january_4th - (std::chrono::weekday(january_4th) - std::chrono::Monday);
  const sys_days monday = week_1 + std::chrono::weeks(*week - 1);
  // A week belongs to the year that its Thursday is in.
  const bool in_year = std::chrono::year_month_day(monday + days(3)).year() == y;
  if (!in_year || weekday < 1 || weekday > 7) {
    return std::nullopt;
  }
  return monday + days(weekday - 1);
}

std::optional<sys_days> take_date(std::string_view& rest) noexcept {
  const std::optional<int> year_number = take_digits(rest, 4);
  if (!year_number) {
    return std::nullopt;
  }
  const year y{*year_number};
  const bool extended = take(rest, '-');
  if (take(rest, 'W')) {
    return take_week_date(rest, y, extended);
  }
  if (leading_digits(rest) == 3) {
    const sys_days day = sys_days(y / 1 / 1) + days(*take_digits(rest, 3) - 1);
    const bool in_year = std::chrono::year_month_day(day).year() == y;
    return in_year ? std::optional(day) : std::nullopt;
  }
  const std::optional<int> month = take_digits(rest, 2);
  if (!month || (extended && !take(rest, '-'))) {
    return std::nullopt;
  }
  const std::optional<int> day = take_digits(rest, 2);
  if (!day) {
    return std::nullopt;
  }
  const auto date = y / *month / *day;
  return date.ok() ? std::optional(sys_days(date)) : std::nullopt;
}

/// The microseconds of a fraction's digits; further digits are cut off.
microseconds fraction(std::string_view digits) noexcept {
  int value = 0;
  for (std::size_t i = 0; i < 6; ++i) {
    value = value * 10 + (i < digits.size() ? digits[i] - '0' : 0);
  }
  return microseconds(value);
}

/// A time of day or a distance from UTC, which is all of `text`.
std::optional<microseconds> parse_clock(std::string_view text) noexcept {
  std::array<int, 3> fields{};
  bool extended = false;
  for (std::size_t i = 0; i < fields.size() && (i == 0 || !text.empty()); ++i) {
    if (i == 1) {
      extended = text.starts_with(':');
    }
    if (i > 0 && extended && !take(text, ':')) {
      return std::nullopt;
    }
    const std::optional<int> field = take_digits(text, 2);
    if (!field || *field > (i == 0 ? 23 : 59)) {
      return std::nullopt;
    }
    fields[i] = *field;
  }
  microseconds time = hours(fields[0]) + minutes(fields[1]) + seconds(fields[2]);
  if (text.empty()) {
    return time;
  }
  if (!take(text, '.') && !take(text, ',')) {
    return std::nullopt;
  }
  if (text.empty() || leading_digits(text) != text.size()) {
    return std::nullopt;
  }
  return time + fraction(text);
}

/// The distance from UTC that `zone` spells.
std::optional<microseconds> parse_zone(std::string_view zone) noexcept {
  if (zone.empty() || zone == "Z") {
    return microseconds(0);
  }
  const int sign = zone.front() == '-' ? -1 : zone.front() == '+' ? 1 : 0;
  const std::optional<microseconds> distance = parse_clock(zone.substr(1));
  if (sign == 0 || !distance) {
    return std::nullopt;
  }
  return sign * *distance;
}

/// The bytes of the UTF-8 character that begins with `first`.
std::size_t character_bytes(char first) noexcept {
  const auto byte = static_cast<unsigned char>(first);
  return byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

std::string format(Timestamp time, char separator) {
  if (!in_range(time)) {
    throw StorageError(Errc::invalid_argument, "format time", "",
                       "its year is not between 1 and 9999");
  }
  const auto day = std::chrono::floor<days>(time);
  const std::chrono::year_month_day date(day);
  const std::chrono::hh_mm_ss clock(std::chrono::floor<seconds>(time - day));
  std::array<char, 64> buffer{};
  std::snprintf(buffer.data(), buffer.size(), "%04d-%02u-%02u%c%02d:%02d:%02d",
                static_cast<int>(date.year()), static_cast<unsigned>(date.month()),
                static_cast<unsigned>(date.day()), separator,
                static_cast<int>(clock.hours().count()), static_cast<int>(clock.minutes().count()),
                static_cast<int>(clock.seconds().count()));
  return buffer.data();
}

}  // namespace

std::optional<Timestamp> parse_iso8601(std::string_view text) noexcept {
  const std::optional<sys_days> date = take_date(text);
  if (!date) {
    return std::nullopt;
  }
  Timestamp time = *date;
  if (!text.empty()) {
    text.remove_prefix(std::min(character_bytes(text.front()), text.size()));
    const std::size_t clock_bytes = std::min(text.find_first_of("Z+-"), text.size());
    const std::optional<microseconds> clock = parse_clock(text.substr(0, clock_bytes));
    const std::optional<microseconds> zone = parse_zone(text.substr(clock_bytes));
    if (!clock || !zone) {
      return std::nullopt;
    }
    time += *clock - *zone;
  }
  return in_range(time) ? std::optional(time) : std::nullopt;
}

std::string format_iso8601(Timestamp time) {
  std::string text = format(time, 'T');
  const microseconds part = time - std::chrono::floor<seconds>(time);
  if (part != microseconds(0)) {
    const std::string digits = std::to_string(part.count());
    text.append(1, '.').append(6 - digits.size(), '0').append(digits);
  }
  return text + "+00:00";
}

std::optional<std::chrono::sys_seconds> parse_created_at(std::string_view text) noexcept {
  const std::optional<Timestamp> time = parse_iso8601(text);
  return time ? std::optional(std::chrono::floor<seconds>(*time)) : std::nullopt;
}

std::string format_created_at(std::chrono::sys_seconds time) {
  return format(time, ' ');
}

}  // namespace tidemark::detail
