#include "housekeeping.hpp"

#include <chrono>
#include <exception>
#include <string>

#include <tidemark/engine/sleep_for.hpp>
#include <tidemark/engine/sync_wait.hpp>

#include "log.hpp"

namespace tus {
namespace {

using namespace std::chrono_literals;
using tidemark::Storage;
using tidemark::Task;

Task<void> clean_once(Storage& storage, bool sweep) {
  try {
    const std::size_t expired = co_await storage.cleanup_expired_uploads();
    if (expired > 0) log("expired", {{"uploads", expired}});
    if (!sweep) co_return;
    const tidemark::SweepReport report = co_await storage.sweep();
    const std::size_t orphans = report.orphan_files.size() + report.orphan_rows.size();
    if (orphans > 0) log("swept", {{"orphans", orphans}});
    for (const auto& id : report.corrupt) log("corrupt", {{"id", id.view()}});
  } catch (const tidemark::StorageError& error) {
    log("housekeeping failed", {{"what", error.what()}});
  }
}

Task<void> keep_house(Storage& storage) {
  for (int minute = 0;; ++minute) {
    co_await clean_once(storage, minute % 60 == 0);
    co_await tidemark::sleep_for(60s);
  }
}

Task<void> end(tidemark::Scope& scope) {
  scope.request_stop();
  try {
    co_await scope.join();
  } catch (const std::system_error&) {  // It was stopped: that is how it ends.
  }
}

}  // namespace

Housekeeping::Housekeeping(tidemark::Engine& engine, Storage& storage)
    : engine_(engine), scope_(storage.executor()) {
  scope_.spawn(keep_house(storage));
}

Housekeeping::~Housekeeping() {
  tidemark::sync_wait(engine_, end(scope_));
}

}  // namespace tus
