#pragma once

#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>

#include <tidemark/engine/engine.hpp>
#include <tidemark/io/directory.hpp>
#include <tidemark/storage/upload_id.hpp>

namespace tus {

/// Keeps what was asked of final uploads whose parts are not all there yet
/// (concatenation-unfinished): a note for each, in a file of its own, called by its id.
///
/// Errors: std::system_error. Thread safety: the tasks run on the engine, whoever awaits them.
class UnfinishedFinals {
 public:
  static tidemark::Task<UnfinishedFinals> open(tidemark::Engine& engine,
                                               std::filesystem::path folder);

  tidemark::Executor& executor() const { return folder_.executor(); }

  /// The note is stable when it returns.
  tidemark::Task<void> add(tidemark::UploadId id, std::string note);
  tidemark::Task<std::optional<std::string>> find(tidemark::UploadId id);
  /// False when there was none.
  tidemark::Task<bool> remove(tidemark::UploadId id);
  /// Removes the notes that were added before `time`; gives how many.
  tidemark::Task<std::size_t> remove_older(tidemark::SystemTime time);

 private:
  explicit UnfinishedFinals(tidemark::Directory folder) : folder_(std::move(folder)) {}

  tidemark::Directory folder_;
};

}  // namespace tus
