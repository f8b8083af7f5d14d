#include "check.hpp"

#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include <tidemark/engine/sleep_for.hpp>

#include "client_support.hpp"
#include "judge.hpp"

namespace tidemark::sim {
namespace {

constexpr std::chrono::seconds k_prompt{1};

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

/// Somebody can write it, and at once.
Task<void> check_writable(Life& life, Service service, const Upload& upload) {
  const TimePoint began = life.machine.now();
  try {
    const std::unique_ptr<UploadWriter> writer = co_await service.storage.open_writer(upload.id);
    const AppendResult result = co_await writer->close();
    if (service.process.is_dead()) co_return;
    if (result.status != AppendStatus::committed) upload.fail("nobody has it, but it is refused");
  } catch (const std::system_error& error) {
    if (!service.process.is_dead()) upload.fail(std::string("nobody has it, but: ") + error.what());
  }
  if (life.machine.now() - began > k_prompt) upload.fail("nobody has it, but it takes long");
}

bool must_be_writable(const Upload& upload) {
  return upload.presence == Upload::Presence::there && !upload.is_foreign &&
         !upload.may_be_complete() && !upload.may_expire();
}

}  // namespace

Task<void> check_free(Executor&, Life& life, Service service) {
  co_await sleep_for(k_settling);
  life.machine.is_quick = true;
  try {
    for (const Upload* const upload : life.model.all()) {
      if (must_be_writable(*upload)) co_await check_writable(life, service, *upload);
    }
    const std::size_t left = service.storage.buffers().bytes_in_use();
    if (left > 0) throw Violation(std::to_string(left) + " bytes of buffers were not given back");
  } catch (const Violation&) {
    if (!life.violation) life.violation = std::current_exception();
  }
  life.machine.is_quick = false;
}

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
