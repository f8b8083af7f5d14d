#pragma once

#include <memory>

#include <tidemark/storage/detail/store.hpp>

namespace tidemark::detail {

/// Opens or makes the folder and the database, and all that works on them. Throws as
/// SQLiteStorage::open.
Task<std::unique_ptr<Store>> open_store(StorageCore& core, StorageOptions options,
                                        std::size_t bytes_in_flight);

/// Closes what the store's threads have open. No operation runs, none comes after.
Task<void> close_store(Store& store);

}  // namespace tidemark::detail
