#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <random>
#include <string>
#include <string_view>

#include <tidemark/storage/iso8601.hpp>
#include <tidemark/storage/storage_error.hpp>

#include "catch.hpp"

using std::chrono::hours;
using std::chrono::microseconds;
using std::chrono::seconds;
using std::chrono::sys_days;
using std::chrono::year;
using tidemark::detail::format_created_at;
using tidemark::detail::format_iso8601;
using tidemark::detail::parse_created_at;
using tidemark::detail::parse_iso8601;
using tidemark::detail::Timestamp;

namespace {

/// `text` read and written again, or "-" when it is unreadable.
std::string reformat(std::string_view text) {
  const std::optional<Timestamp> time = parse_iso8601(text);
  return time ? format_iso8601(*time) : "-";
}

}  // namespace

TEST_CASE("dates are read in every form") {
  for (const std::string_view text :
       {"2024-03-01", "20240301", "2024-W09-5", "2024W095", "2024-061", "2024061"}) {
    INFO(text);
    CHECK(reformat(text) == "2024-03-01T00:00:00+00:00");
  }
  CHECK(reformat("2024-W09") == "2024-02-26T00:00:00+00:00");
  CHECK(reformat("2024W09") == "2024-02-26T00:00:00+00:00");
}

TEST_CASE("times are read in every form") {
  for (const std::string_view text : {"2024-03-01T05:06:07",
                                      "2024-03-01 05:06:07",
                                      "2024-03-01_05:06:07",
                                      "20240301T050607",
                                      "20240301-050607",
                                      "2024-03-01T05:06:07Z",
                                      "2024-03-01T05:06:07+00:00",
                                      "2024-03-01T05:06:07-00:00",
                                      "2024-03-01T07:06:07+02",
                                      "2024-03-01T07:06:07+0200",
                                      "2024-03-01T00:36:07-0430",
                                      "2024-02-29T22:06:07-07:00",
                                      "2024-03-02T05:05:07+23:59",
                                      "2024-02-29T05:07:07-23:59",
                                      "2024-03-01T05:06:08+00:00:01",
                                      "2024-03-01T05:06:07.5+00:00:00.5",
                                      "2024-03-01T05:06:07.0000009",
                                      "2024-03-01\xE2\x80\x83"
                                      "05:06:07",
                                      "2024-W09-5T05:06:07",
                                      "2024W095 050607",
                                      "2024-061T05:06:07",
                                      "2024061T050607"}) {
    INFO(text);
    CHECK(reformat(text) == "2024-03-01T05:06:07+00:00");
  }
  CHECK(reformat("2024-03-01T05") == "2024-03-01T05:00:00+00:00");
  CHECK(reformat("2024-03-01T05:06") == "2024-03-01T05:06:00+00:00");
  CHECK(reformat("2024-03-01T0506Z") == "2024-03-01T05:06:00+00:00");
  CHECK(reformat("2024-03-01T23:59:59.999999") == "2024-03-01T23:59:59.999999+00:00");
  // A week date's '-' before two digits stands before the hour.
  CHECK(reformat("2024-W09-12:30") == "2024-02-26T12:30:00+00:00");
  // An odd number of digits is a separator and pairs; an even one begins with the weekday.
  CHECK(reformat("2024W0951230") == "2024-02-26T12:30:00+00:00");
  CHECK(reformat("2024W095123") == "2024-03-01T23:00:00+00:00");
}

TEST_CASE("a fraction may have any number of digits and is cut to microseconds") {
  CHECK(reformat("2024-01-01T00:00:00.1") == "2024-01-01T00:00:00.100000+00:00");
  CHECK(reformat("2024-01-01T00:00:00,12345") == "2024-01-01T00:00:00.123450+00:00");
  CHECK(reformat("2024-01-01T000000.000001") == "2024-01-01T00:00:00.000001+00:00");
  CHECK(reformat("2024-01-01T00:00:00.9999999") == "2024-01-01T00:00:00.999999+00:00");
  CHECK(reformat("2024-01-01T00:00:00." + std::string(1000, '9')) ==
        "2024-01-01T00:00:00.999999+00:00");
}

TEST_CASE("the calendar's limits hold one below, at and one above") {
  CHECK(reformat("2023-02-28") != "-");
  CHECK(reformat("2023-02-29") == "-");
  CHECK(reformat("2024-02-29") != "-");
  CHECK(reformat("2024-02-30") == "-");
  CHECK(reformat("1900-02-29") == "-");
  CHECK(reformat("2000-02-29") != "-");
  CHECK(reformat("2024-04-30") != "-");
  CHECK(reformat("2024-04-31") == "-");
  CHECK(reformat("2024-01-00") == "-");
  CHECK(reformat("2024-01-31") != "-");
  CHECK(reformat("2024-01-32") == "-");
  CHECK(reformat("2024-00-01") == "-");
  CHECK(reformat("2024-12-01") != "-");
  CHECK(reformat("2024-13-01") == "-");
  CHECK(reformat("2023-000") == "-");
  CHECK(reformat("2023-001") == "2023-01-01T00:00:00+00:00");
  CHECK(reformat("2023-365") == "2023-12-31T00:00:00+00:00");
  CHECK(reformat("2023-366") == "-");
  CHECK(reformat("2024-366") == "2024-12-31T00:00:00+00:00");
  CHECK(reformat("2024-367") == "-");
  CHECK(reformat("2020-W00") == "-");
  CHECK(reformat("2020-W53-7") == "2021-01-03T00:00:00+00:00");
  CHECK(reformat("2020-W54") == "-");
  CHECK(reformat("2021-W01-1") == "2021-01-04T00:00:00+00:00");
  CHECK(reformat("2021-W52") != "-");
  CHECK(reformat("2021-W53") == "-");
  CHECK(reformat("2021-W01-0") == "-");
  CHECK(reformat("2021-W01-8") == "-");
  CHECK(reformat("2024-01-01T23:59:59") != "-");
  CHECK(reformat("2024-01-01T24:00:00") == "-");
  CHECK(reformat("2024-01-01T23:60:00") == "-");
  CHECK(reformat("2024-01-01T23:59:60") == "-");
  CHECK(reformat("2024-01-01T00:00+23:59") != "-");
  CHECK(reformat("2024-01-01T00:00+24:00") == "-");
  CHECK(reformat("2024-01-01T00:00-00:60") == "-");
}

TEST_CASE("years 1 to 9999 are read and written, in UTC") {
  CHECK(reformat("0000-12-31T23:59:59.999999") == "-");
  CHECK(reformat("0001-01-01") == "0001-01-01T00:00:00+00:00");
  CHECK(reformat("0001-01-01T00:00+00:01") == "-");
  CHECK(reformat("0001-01-01T00:01+00:01") == "0001-01-01T00:00:00+00:00");
  CHECK(reformat("9999-12-31T23:59:59.999999") == "9999-12-31T23:59:59.999999+00:00");
  CHECK(reformat("9999-12-31T23:59:59-00:00:01") == "-");
  CHECK(reformat("9999-12-31T23:59:58-00:00:01") == "9999-12-31T23:59:59+00:00");
  CHECK(reformat("9999-W52-7") == "-");
  CHECK_THROWS_AS(format_iso8601(Timestamp::max()), tidemark::StorageError);
  CHECK_THROWS_AS(format_iso8601(Timestamp::min()), tidemark::StorageError);
  CHECK_THROWS_AS(format_iso8601(sys_days(year{10000} / 1 / 1)), tidemark::StorageError);
  CHECK_THROWS_AS(format_iso8601(sys_days(year{1} / 1 / 1) - microseconds(1)),
                  tidemark::StorageError);
  CHECK_THROWS_AS(format_created_at(sys_days(year{10000} / 1 / 1)), tidemark::StorageError);
}

TEST_CASE("what is no time is not read") {
  for (const std::string_view text : {"",
                                      "2",
                                      "2024",
                                      "2024-",
                                      "2024-01",
                                      "202401",
                                      "2024-01-",
                                      "2024-01-1",
                                      "2024-1-01",
                                      "2024-0101",
                                      "202401-01",
                                      "24-01-01",
                                      "-2024-01-01",
                                      "+2024-01-01",
                                      " 2024-01-01",
                                      "2024-01-01 ",
                                      "2024-01-01T",
                                      "2024-01-01TZ",
                                      "2024-01-01T+01",
                                      "2024-01-01T5",
                                      "2024-01-01T05:",
                                      "2024-01-01T05:6",
                                      "2024-01-01T05:06:",
                                      "2024-01-01T05:06:7",
                                      "2024-01-01T05:0607",
                                      "2024-01-01T0506:07",
                                      "2024-01-01T05:06:07.",
                                      "2024-01-01T05:06:07.x",
                                      "2024-01-01T05:06:07.1x",
                                      "2024-01-01T05.5",
                                      "2024-01-01T05:06.5",
                                      "2024-01-01T05:06:07z",
                                      "2024-01-01T05:06:07ZZ",
                                      "2024-01-01T05:06:07Z+00:00",
                                      "2024-01-01T05:06:07+",
                                      "2024-01-01T05:06:07+1",
                                      "2024-01-01T05:06:07+01:",
                                      "2024-01-01T05:06:07+01:0",
                                      "2024-01-01T05:06:07+01+01",
                                      "2024-01-01T05:06:07 +01:00",
                                      "2024-01-01  05:06:07",
                                      "2024-W",
                                      "2024-W1",
                                      "2024-W01-",
                                      "2024W01-1",
                                      "2024-W011",
                                      "2024-w01",
                                      "infinity",
                                      "1704067200",
                                      "2024-01-01T05:06:07+-1:00",
                                      "2024-01-01\xE2",
                                      "2024-01-01\xE2\x80"}) {
    INFO(text);
    CHECK(reformat(text) == "-");
  }
  using std::string_view_literals::operator""sv;
  CHECK(reformat("2024-01-01T05:06:07\0"sv) == "-");
}

TEST_CASE("times before 1970 have a fraction of their own second") {
  const Timestamp time = sys_days(year{1969} / 12 / 31) + hours(24) - microseconds(1);
  CHECK(format_iso8601(time) == "1969-12-31T23:59:59.999999+00:00");
  CHECK(parse_iso8601("1969-12-31T23:59:59.999999") == time);
  CHECK(parse_created_at("1969-12-31 23:59:59.5") == std::chrono::sys_seconds(seconds(-1)));
}

TEST_CASE("created_at is written as SQLite's CURRENT_TIMESTAMP") {
  const std::chrono::sys_seconds time = sys_days(year{2024} / 3 / 1) + hours(5) + seconds(67);
  CHECK(format_created_at(time) == "2024-03-01 05:01:07");
  CHECK(parse_created_at("2024-03-01 05:01:07") == time);
  CHECK(parse_created_at("2024-03-01T05:01:07.25+00:00") == time);
  CHECK_FALSE(parse_created_at("2024-03-01 05:01:7"));
  CHECK_FALSE(parse_created_at(""));
}

TEST_CASE("every time that is written is read back") {
  std::mt19937_64 random(1);
  std::uniform_int_distribution<microseconds::rep> count(
      Timestamp(sys_days(year{1} / 1 / 1)).time_since_epoch().count(),
      Timestamp(sys_days(year{10000} / 1 / 1)).time_since_epoch().count() - 1);
  for (int i = 0; i < 20000; ++i) {
    const Timestamp time{microseconds(count(random))};
    REQUIRE(parse_iso8601(format_iso8601(time)) == time);
    const auto second = std::chrono::floor<seconds>(time);
    REQUIRE(parse_iso8601(format_iso8601(second)) == second);
    REQUIRE(parse_created_at(format_created_at(second)) == second);
  }
}

TEST_CASE("times are read as the installed Python reads them") {
  if (std::system("python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' "
                  "> /dev/null 2>&1") != 0) {
    WARN("NOT TESTED: there is no python3 of 3.11 or later on PATH to compare with");
    return;
  }
  std::string name = (std::filesystem::temp_directory_path() / "tidemark-iso-XXXXXX").string();
  REQUIRE(mkdtemp(name.data()) != nullptr);
  const std::filesystem::path folder = name;
  std::ofstream(folder / "times.py") << R"(
import datetime, random
random.seed(1)
pick = random.choice
for _ in range(30000):
    day = datetime.date.fromordinal(random.randint(400, 3652059 - 400))
    week = day.isocalendar()
    date = pick([day.isoformat(), day.strftime('%Y%m%d').zfill(8),
                 f'{week[0]:04}-W{week[1]:02}-{week[2]}', f'{week[0]:04}W{week[1]:02}{week[2]}',
                 f'{week[0]:04}-W{week[1]:02}', f'{week[0]:04}W{week[1]:02}'])
    field = lambda top: f'{random.randint(0, top):02}'
    def clock(top):
        fields = [field(top)] + [field(59) for _ in range(random.randint(0, 2))]
        fraction = ''
        if len(fields) == 3 and pick([True, False]):
            fraction = pick('.,') + ''.join(pick('0123456789') for _ in range(random.randint(1, 9)))
        return pick(['', ':']).join(fields) + fraction
    text = date
    if pick([True, True, False]):
        text += pick('T _/\u00e9\U0001f600') + clock(24) + pick(['', 'Z', pick('+-') + clock(23)])
    try:
        time = datetime.datetime.fromisoformat(text)
        if time.tzinfo is None: time = time.replace(tzinfo=datetime.timezone.utc)
        print(text + '\t' + time.astimezone(datetime.timezone.utc).isoformat())
    except ValueError:
        print(text + '\t-')
)";
  const std::string command = "PYTHONIOENCODING=utf-8 python3 '" + (folder / "times.py").string() +
                              "' > '" + (folder / "lines").string() + "'";
  REQUIRE(std::system(command.c_str()) == 0);
  std::ifstream lines(folder / "lines");
  int read = 0;
  for (std::string line; std::getline(lines, line);) {
    const std::size_t tab = line.find('\t');
    REQUIRE(tab != std::string::npos);
    CHECK(line.substr(0, tab) + "\t" + reformat(line.substr(0, tab)) == line);
    ++read;
  }
  CHECK(read == 30000);
  std::filesystem::remove_all(folder);
}
