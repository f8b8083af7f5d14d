#pragma once

#include <optional>
#include <string>

#include <tidemark/engine/task.hpp>

namespace tidemark {

/// Where a client keeps the URL of an upload that it began, under the fingerprint of the file that
/// it sends, so that it can resume after a restart. A fingerprint is any text.
///
/// Errors: StorageError; a task that is asked to stop in time throws
/// std::errc::operation_canceled and has changed nothing. Thread safety: operations may run at the
/// same time. Lifetime: outlives its tasks.
class URLStorage {
 public:
  virtual ~URLStorage() = default;

  /// Nothing when none is kept.
  virtual Task<std::optional<std::string>> get_url(std::string fingerprint) = 0;
  /// Keeps `url` in place of the one before.
  virtual Task<void> set_url(std::string fingerprint, std::string url) = 0;
  /// Removing nothing is no error.
  virtual Task<void> remove_url(std::string fingerprint) = 0;
};

}  // namespace tidemark
