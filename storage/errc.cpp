#include <string>
#include <system_error>

#include <tidemark/storage/errc.hpp>

namespace tidemark {
namespace {

class StorageCategory final : public std::error_category {
 public:
  const char* name() const noexcept override { return "tidemark"; }

  std::string message(int code) const override {
    switch (static_cast<Errc>(code)) {
      case Errc::not_found:
        return "no such upload";
      case Errc::already_exists:
        return "it already exists";
      case Errc::length_exceeded:
        return "the upload's length would be exceeded";
      case Errc::already_complete:
        return "the upload is already complete";
      case Errc::expired:
        return "the upload has expired";
      case Errc::invalid_argument:
        return "invalid argument";
      case Errc::lock_timeout:
        return "timed out waiting for the upload's lock";
      case Errc::no_space:
        return "no space left on the device";
      case Errc::quota_exceeded:
        return "a storage limit would be exceeded";
      case Errc::corrupt:
        return "stored data is corrupt";
      case Errc::io_error:
        return "input/output error";
      case Errc::busy:
        return "the database is busy";
      case Errc::shutting_down:
        return "the storage is shutting down";
    }
    return "unknown tidemark error " + std::to_string(code);
  }

  std::error_condition default_error_condition(int code) const noexcept override {
    switch (static_cast<Errc>(code)) {
      case Errc::not_found:
        return std::errc::no_such_file_or_directory;
      case Errc::already_exists:
        return std::errc::file_exists;
      case Errc::length_exceeded:
        return std::errc::file_too_large;
      case Errc::invalid_argument:
        return std::errc::invalid_argument;
      case Errc::lock_timeout:
        return std::errc::timed_out;
      case Errc::no_space:
        return std::errc::no_space_on_device;
      case Errc::io_error:
        return std::errc::io_error;
      case Errc::busy:
        return std::errc::device_or_resource_busy;
      // No std::errc says what these say. In particular shutting_down is not operation_canceled:
      // a caller that cancelled its own work must be able to tell the two apart.
      case Errc::already_complete:
      case Errc::expired:
      case Errc::quota_exceeded:
      case Errc::corrupt:
      case Errc::shutting_down:
        break;
    }
    return {code, *this};
  }
};

}  // namespace

const std::error_category& storage_category() noexcept {
  static const StorageCategory category;
  return category;
}

std::error_code make_error_code(Errc code) noexcept {
  return {static_cast<int>(code), storage_category()};
}

}  // namespace tidemark
