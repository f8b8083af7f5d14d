#pragma once

#include <filesystem>

#include <tidemark/engine/task.hpp>
#include <tidemark/storage/storage.hpp>

namespace tidemark::detail {

class Store;

/// Storage::backup on nothing but list_uploads: a new database of the common format at `path`, in
/// one transaction, stable when it returns. After an error nothing is left at `path`.
Task<void> back_up_rows(Storage& storage, std::filesystem::path path);

/// The same by SQLite's online backup of the store's database. Throws what SQLite answers.
Task<void> back_up_database(Store& store, std::filesystem::path path);

}  // namespace tidemark::detail
