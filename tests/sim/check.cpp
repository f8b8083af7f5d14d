#include "check.hpp"

#include <optional>
#include <string>

namespace tidemark::sim {
namespace {

using Presence = Upload::Presence;

/// What the disk has of the file, or nothing.
std::optional<std::string> content_of(Life& life, const std::string& path) {
  const FilePtr file = life.machine.disk().find(path);
  return file == nullptr ? std::nullopt : std::optional(file->now);
}

void check_released(Life& life, Upload& upload) {
  const std::optional<std::string> content = content_of(life, upload.released_to);
  if (!content) upload.fail("it was to be released, and is nowhere");
  const bool whole = content->size() >= upload.durable &&
                     content->size() == upload.length.value_or(content->size());
  if (!whole) upload.fail("the released file has another size");
  upload.check_content(*content);
}

/// What a power cut may do to bytes that nobody has made stable.
bool is_spoiled(const Upload& upload, std::uint64_t offset, std::string_view content) {
  if (!upload.has_foreign_tail() || offset <= upload.durable) return false;
  if (content.size() < offset) return true;
  try {
    upload.check_content(content.substr(0, offset));
    return false;
  } catch (const Violation&) {
    return true;
  }
}

void check_row(Life& life, Upload& upload, const tidemark::Upload& row, bool after_cut) {
  if (life.machine.is_verbose) {
    life.machine.log(upload.id + " stands at " + std::to_string(row.offset));
  }
  if (row.offset < upload.durable) {
    upload.fail("the offset is " + std::to_string(row.offset) + " of " +
                std::to_string(upload.durable) + " that were acknowledged");
  }
  if (upload.complete && !row.completed) upload.fail("it is no longer complete");
  const std::optional<std::string> content = content_of(life, "/sim/uploads/" + upload.id);
  if (!content && row.offset == 0) {
    upload.presence = Presence::maybe_gone;  // A row that a sweep removes.
    return;
  }
  const std::string_view bytes = content ? std::string_view(*content) : std::string_view();
  if (after_cut && is_spoiled(upload, row.offset, bytes)) {
    upload.presence = Presence::spoiled;
    if (bytes.size() < upload.durable)
      upload.fail("its file is shorter than what was acknowledged");
    return upload.check_content(bytes.substr(0, upload.durable));
  }
  if (!content) upload.fail("its file is gone");
  if (bytes.size() < row.offset) upload.fail("its file is shorter than its offset");
  const bool has_tail = row.completed && bytes.size() != row.offset;
  // Other implementations leave tails, and have their own idea of complete.
  if (has_tail && upload.foreign_offset < row.offset) upload.fail("a stale tail was left");
  const std::string_view committed = bytes.substr(0, row.offset);
  upload.check_content(committed);
  if (!after_cut) return;
  upload.length = row.length;
  upload.settle(committed);
  upload.presence = Presence::there;
}

Task<void> check_upload(Life& life, Service service, Upload& upload, bool after_cut) {
  const auto row = co_await service.storage.get_upload(upload.id);
  if (service.process.is_dead()) co_return;
  if (upload.presence == Presence::gone) {
    if (row) upload.fail("it was deleted, and is back");
  } else if (row) {
    check_row(life, upload, *row, after_cut);
    if (!upload.released_to.empty() && !content_of(life, upload.released_to)) {
      upload.released_to.clear();
    }
  } else {
    const bool expired = upload.expires_at && !upload.complete &&
                         *upload.expires_at <= life.machine.latest_system_now();
    if (upload.presence == Presence::there && !expired) upload.fail("it is gone");
    if (after_cut) upload.presence = Presence::gone;
  }
  if (upload.presence == Presence::gone && !upload.released_to.empty()) {
    const bool is_there = content_of(life, upload.released_to).has_value();
    if (is_there || upload.is_released || !upload.may_be_deleted) check_released(life, upload);
  }
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
