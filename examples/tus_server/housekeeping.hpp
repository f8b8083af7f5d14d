#pragma once

#include <tidemark/engine/engine.hpp>
#include <tidemark/engine/scope.hpp>
#include <tidemark/storage/storage.hpp>

#include "final_uploads.hpp"

namespace tus {

/// Deletes uploads and unfinished final uploads that have expired, each minute, and what a crash
/// left behind or can never be joined, each hour, until it is destroyed. Not to be destroyed by an
/// engine's thread.
class Housekeeping {
 public:
  Housekeeping(tidemark::Engine& engine, tidemark::Storage& storage, FinalUploads& finals);
  ~Housekeeping();
  Housekeeping(const Housekeeping&) = delete;
  Housekeeping& operator=(const Housekeeping&) = delete;

 private:
  tidemark::Engine& engine_;
  tidemark::Scope scope_;
};

}  // namespace tus
