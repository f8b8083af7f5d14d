#include "housekeeping.hpp"

#include <chrono>
#include <exception>
#include <string>
#include <system_error>

#include <tidemark/engine/perform.hpp>
#include <tidemark/engine/sleep_for.hpp>
#include <tidemark/engine/sync_wait.hpp>

#include "log.hpp"

namespace tus {
namespace {

using namespace std::chrono_literals;
using tidemark::Storage;
using tidemark::Task;

struct House {
  Storage& storage;
  FinalUploads& finals;
};

Task<void> sweep(House& house) {
  const tidemark::SweepReport report = co_await house.storage.sweep();
  for (const auto& id : report.orphan_files) log("swept", {{"file", id.view()}});
  for (const auto& id : report.orphan_rows) log("swept", {{"row", id.view()}});
  for (const auto& id : report.corrupt) log("corrupt", {{"id", id.view()}});
  const std::size_t hopeless = co_await house.finals.remove_hopeless();
  if (hopeless > 0) log("swept", {{"finals", hopeless}});
}

Task<void> clean_once(House& house, bool is_hourly) {
  try {
    std::size_t expired = co_await house.storage.cleanup_expired_uploads();
    expired += co_await house.finals.remove_expired();
    if (expired > 0) log("expired", {{"uploads", expired}});
    if (is_hourly) co_await sweep(house);
  } catch (const std::exception& error) {
    const auto* const stopped = dynamic_cast<const std::system_error*>(&error);
    if (stopped != nullptr && tidemark::is_canceled(*stopped)) throw;
    log("housekeeping failed", {{"what", error.what()}});
  }
}

Task<void> keep_house(House house) {
  for (int minute = 0;; ++minute) {
    co_await clean_once(house, minute % 60 == 0);
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

Housekeeping::Housekeeping(tidemark::Engine& engine, Storage& storage, FinalUploads& finals)
    : engine_(engine), scope_(storage.executor()) {
  scope_.spawn(keep_house({storage, finals}));
}

Housekeeping::~Housekeeping() {
  tidemark::sync_wait(engine_, end(scope_));
}

}  // namespace tus
