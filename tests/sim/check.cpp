#include "check.hpp"

#include <optional>
#include <string>

#include "client_support.hpp"
#include "judge.hpp"

namespace tidemark::sim {
namespace {

Task<void> check_upload(Life& life, Service service, Upload& upload, bool after_cut) {
  const std::optional<tidemark::Upload> found = co_await service.storage.get_upload(upload.id);
  if (service.process.is_dead()) co_return;
  std::optional<Row> row;
  if (found) {
    row = Row{found->offset, found->length, found->expires_at, text_of(found->metadata)};
    if (!found->metadata_error.empty()) upload.fail(found->metadata_error);
  }
  judge(upload, row, life.machine, after_cut);
  if (after_cut) settle(upload, row, life.machine);
}

Task<void> check_urls(Life& life, Service service) {
  for (auto& [key, possible] : life.model.urls) {
    if (possible.empty()) continue;
    const std::optional<std::string> url = co_await service.urls.get_url(key);
    if (service.process.is_dead()) co_return;
    if (!possible.contains(url)) throw Violation(key + ": the URL is none that was kept");
    possible = {url};
  }
}

}  // namespace

Task<void> check_all(Executor&, Life& life, Service service, bool after_cut) {
  try {
    for (Upload* const upload : life.model.all()) {
      co_await check_upload(life, service, *upload, after_cut);
    }
    co_await check_urls(life, service);
  } catch (const Violation&) {
    life.violation = std::current_exception();
  } catch (const std::system_error& error) {
    if (!service.process.is_dead()) life.report(std::string("the check failed: ") + error.what());
  }
}

}  // namespace tidemark::sim
