#pragma once

#include <cstdint>
#include <string>

#include <tidemark/storage/detail/store.hpp>

namespace tidemark::detail {

/// Copies the first `length` bytes of `from` to `to` from `at` on: inside the kernel, sharing
/// blocks where the file system can, else through memory. Not stable. Heeds a stop between steps.
/// Throws StorageError (corrupt) when `from` is shorter, and what the system answers.
Task<void> copy_file(Store& store, File& from, std::uint64_t length, File& to, std::uint64_t at);

/// A name that nothing else has, in a folder where bytes go before they have their own.
std::string temporary_name(Environment& environment);

}  // namespace tidemark::detail
