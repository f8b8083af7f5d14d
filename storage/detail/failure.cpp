#include <cerrno>
#include <system_error>

#include <tidemark/engine/perform.hpp>
#include <tidemark/storage/detail/database.hpp>
#include <tidemark/storage/detail/failure.hpp>
#include <tidemark/storage/storage_error.hpp>

namespace tidemark::detail {
namespace {

Errc errc_of(const std::error_code& code) {
  if (code == std::errc::no_space_on_device || code == std::error_code(EDQUOT, code.category())) {
    return Errc::no_space;
  }
  if (code == std::errc::file_exists) return Errc::already_exists;
  return Errc::io_error;
}

}  // namespace

bool is_canceled(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const std::system_error& thrown) {
    return tidemark::is_canceled(thrown);
  } catch (...) {
    return false;
  }
}

bool is_no_file(const std::system_error& error) {
  return error.code() == std::errc::too_many_symbolic_link_levels ||
         error.code() == std::errc::is_a_directory || error.code() == std::errc::invalid_argument;
}

void throw_as_storage_error(const std::exception_ptr& error, const char* operation,
                            std::string_view upload_id) {
  try {
    std::rethrow_exception(error);
  } catch (const StorageError&) {
    throw;
  } catch (const SqliteError& thrown) {
    throw StorageError(thrown.errc(), operation, upload_id, thrown.what());
  } catch (const std::system_error& thrown) {
    if (tidemark::is_canceled(thrown)) throw;
    throw StorageError(errc_of(thrown.code()), operation, upload_id, thrown.what());
  }
}

}  // namespace tidemark::detail
