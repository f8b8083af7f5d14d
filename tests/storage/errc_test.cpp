#include <algorithm>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include <tidemark/storage/errc.hpp>
#include <tidemark/storage/storage_error.hpp>

#include "catch.hpp"

using tidemark::Errc;
using tidemark::StorageError;

namespace {

std::vector<std::error_code> all_codes() {
  std::vector<std::error_code> codes;
  for (int code = 1; code <= static_cast<int>(Errc::shutting_down); ++code) {
    codes.emplace_back(static_cast<Errc>(code));
  }
  return codes;
}

}  // namespace

TEST_CASE("an Errc becomes an error_code of the category tidemark") {
  const std::error_code code = Errc::corrupt;
  CHECK(code == Errc::corrupt);
  CHECK(code != Errc::io_error);
  CHECK(code.category() == tidemark::storage_category());
  CHECK(std::string_view(code.category().name()) == "tidemark");
  CHECK(code);
}

TEST_CASE("every Errc says what it means, in words of its own") {
  std::vector<std::string> messages;
  for (const std::error_code& code : all_codes()) {
    CHECK(code.message().find("unknown") == std::string::npos);
    CHECK(std::find(messages.begin(), messages.end(), code.message()) == messages.end());
    messages.push_back(code.message());
  }
  CHECK(messages.size() == 13);
  CHECK(tidemark::storage_category().message(0) == "unknown tidemark error 0");
  CHECK(tidemark::storage_category().message(14) == "unknown tidemark error 14");
}

TEST_CASE("an Errc equals the std::errc condition that says the same") {
  CHECK(make_error_code(Errc::not_found) == std::errc::no_such_file_or_directory);
  CHECK(make_error_code(Errc::already_exists) == std::errc::file_exists);
  CHECK(make_error_code(Errc::length_exceeded) == std::errc::file_too_large);
  CHECK(make_error_code(Errc::invalid_argument) == std::errc::invalid_argument);
  CHECK(make_error_code(Errc::lock_timeout) == std::errc::timed_out);
  CHECK(make_error_code(Errc::no_space) == std::errc::no_space_on_device);
  CHECK(make_error_code(Errc::io_error) == std::errc::io_error);
  CHECK(make_error_code(Errc::busy) == std::errc::device_or_resource_busy);
}

TEST_CASE("an Errc without a matching condition keeps its own") {
  for (const Errc own : {Errc::already_complete, Errc::expired, Errc::quota_exceeded, Errc::corrupt,
                         Errc::shutting_down}) {
    CHECK(make_error_code(own).default_error_condition().category() ==
          tidemark::storage_category());
  }
  for (const std::error_code& code : all_codes()) {
    CHECK(code != std::errc::operation_canceled);
  }
}

TEST_CASE("a StorageError names the operation, the upload and the system's own error") {
  const StorageError error(Errc::no_space, "append", "a1", "pwrite: No space left on device");
  CHECK(error.code() == Errc::no_space);
  CHECK(std::string_view(error.what()) ==
        "append of upload 'a1': pwrite: No space left on device: no space left on the device");
}

TEST_CASE("a StorageError leaves out what is empty") {
  CHECK(std::string_view(StorageError(Errc::shutting_down, "open", "", "").what()) ==
        "open: the storage is shutting down");
  CHECK(std::string_view(StorageError(Errc::not_found, "sync", "x", "").what()) ==
        "sync of upload 'x': no such upload");
}

TEST_CASE("a StorageError is caught as a std::system_error") {
  try {
    throw StorageError(Errc::busy, "commit", "", "");
  } catch (const std::system_error& error) {
    CHECK(error.code() == std::errc::device_or_resource_busy);
  }
}
