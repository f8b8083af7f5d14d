#pragma once

#include <chrono>
#include <optional>

#include <tidemark/engine/engine.hpp>
#include <tidemark/engine/scope.hpp>
#include <tidemark/storage/storage.hpp>

#include "final_uploads.hpp"

namespace tus {

/// Deletes uploads that have expired, and final uploads whose parts did not come within
/// `expire_after`, each minute, and what a crash left behind or can never be joined, each hour,
/// until it is destroyed. Not to be destroyed by an engine's thread.
class Housekeeping {
 public:
  Housekeeping(tidemark::Engine& engine, tidemark::Storage& storage, FinalUploads& finals,
               std::optional<std::chrono::seconds> expire_after);
  ~Housekeeping();
  Housekeeping(const Housekeeping&) = delete;
  Housekeeping& operator=(const Housekeeping&) = delete;

 private:
  tidemark::Engine& engine_;
  tidemark::Scope scope_;
};

}  // namespace tus
