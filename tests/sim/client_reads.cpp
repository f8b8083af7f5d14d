// Steps of a client that read uploads, or what is known of them.

#include <algorithm>
#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <tidemark/engine/sleep_for.hpp>

#include "client_steps.hpp"
#include "client_support.hpp"

namespace tidemark::sim {

using namespace std::chrono_literals;
using Presence = Upload::Presence;

namespace {

/// Longer than a read of a row takes, whatever goes on.
constexpr std::chrono::minutes k_patient{5};

}  // namespace

Client::Facts::Facts(const Upload& upload)
    : presence(upload.presence),
      durable(upload.durable),
      length(upload.length),
      complete(upload.complete),
      expiry(upload.expiry.first()),
      metadata(upload.metadata.first()) {}

void Client::check_facts(const Upload& upload, const Facts& before, const tidemark::Upload& found) {
  if (before.presence == Presence::gone) upload.fail("it was deleted and is back");
  if (found.offset < before.durable) upload.fail("its offset went back");
  if (before.complete && !found.completed) upload.fail("it is no longer complete");
  if (before.length && found.length != before.length) upload.fail("its length is another");
  if (!found.metadata_error.empty()) upload.fail(found.metadata_error);
  if (!upload.metadata.may_be(text_of(found.metadata), before.metadata)) {
    upload.fail("its metadata were not set: " + text_of(found.metadata));
  }
  const bool has_none = found.completed && !found.expires_at;
  if (!has_none && !upload.expiry.may_be(found.expires_at, before.expiry)) {
    upload.fail("its expiry was not set");
  }
}

Task<void> Client::look() {
  Upload* const upload = pick();
  if (upload == nullptr) co_return;
  const Facts before(*upload);
  try {
    const auto found = co_await perhaps_stopped(storage_.get_upload(upload->id));
    if (is_dead()) co_return;
    const bool may_be_gone =
        upload->presence != Presence::there ||
        upload->may_have_expired(life_.machine.latest_system_now(), before.expiry);
    if (!found && before.presence == Presence::there && !may_be_gone) upload->fail("it is gone");
    if (found) check_facts(*upload, before, *found);
  } catch (const std::system_error& error) {
    allow(upload, error);
  }
}

Task<void> Client::read() {
  Upload* const upload = pick();
  if (upload == nullptr) co_return;
  const std::uint64_t from = chance().below(upload->durable + 100);
  const std::uint64_t before = upload->durable;
  std::string bytes(chance().between(1, 10'000), '\0');
  try {
    const std::size_t size = co_await perhaps_stopped(
        storage_.read_at(upload->id, from, std::as_writable_bytes(std::span(bytes))));
    if (is_dead()) co_return;
    if (from + size < std::min<std::uint64_t>(before, from + bytes.size())) {
      upload->fail("fewer bytes than were acknowledged");
    }
    upload->check_content(std::string_view(bytes).substr(0, size), from);
  } catch (const std::system_error& error) {
    if (error.code() == Errc::invalid_argument && from > before) co_return;
    allow(upload, error);
  }
}

Task<void> Client::read_beginning() {
  Upload* const upload = pick();
  if (upload == nullptr) co_return;
  const std::uint64_t before = upload->durable;
  const std::uint64_t most = chance().below(before + 3000);
  try {
    const std::vector<std::byte> bytes =
        co_await perhaps_stopped(storage_.read_file(upload->id, most));
    if (is_dead()) co_return;
    if (bytes.size() > most) upload->fail("more bytes than were asked for");
    if (bytes.size() < std::min(before, most)) upload->fail("fewer bytes than were acknowledged");
    upload->check_content({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  } catch (const std::system_error& error) {
    allow(upload, error);
  }
}

/// Reads while others write.
Task<void> Client::follow() {
  Upload* const upload = pick();
  if (upload == nullptr) co_return;
  std::uint64_t before = upload->durable;
  try {
    const std::unique_ptr<UploadReader> reader =
        co_await perhaps_stopped(storage_.open_reader(upload->id));
    for (std::uint64_t i = chance().between(1, 5); i > 0 && !is_dead(); --i) {
      const std::uint64_t end = reader->committed_offset();
      if (end < before) upload->fail("a reader sees less than was acknowledged");
      co_await sleep_for(std::chrono::microseconds(chance().below(5000)));
      const std::uint64_t acknowledged = upload->durable;
      const std::uint64_t from = chance().below(end + 100);
      std::string bytes(chance().between(1, 10'000), '\0');
      const std::size_t size =
          co_await perhaps_stopped(reader->read_at(from, std::as_writable_bytes(std::span(bytes))));
      if (is_dead()) co_return;
      const std::uint64_t now = reader->committed_offset();
      if (size > 0 && from + size > now) upload->fail("a reader reads what is not committed");
      // Of a deleted upload it sees what it saw before.
      const std::uint64_t least = upload->presence == Presence::there ? acknowledged : end;
      if (from + size < std::min(least, from + bytes.size())) {
        upload->fail("a reader gives fewer bytes than there are");
      }
      upload->check_content(std::string_view(bytes).substr(0, size), from);
      before = end;
    }
  } catch (const std::system_error& error) {
    allow(upload, error);
  }
}

Task<void> Client::await_offset() {
  Upload* const upload = pick();
  if (upload == nullptr) co_return;
  const Facts before(*upload);
  const std::uint64_t beyond =
      chance().once_in(3) ? before.durable : chance().below(before.durable + 2000);
  // What is there already it need not wait for.
  const bool must_end = beyond < before.durable || before.complete;
  const std::chrono::nanoseconds longest =
      must_end ? k_patient : std::chrono::milliseconds(chance().below(500));
  try {
    const std::uint64_t offset =
        co_await with_timeout(storage_.wait_for_offset(upload->id, beyond), longest);
    if (is_dead()) co_return;
    if (offset < before.durable) upload->fail("a wait tells less than was acknowledged");
    if (offset <= beyond && !upload->may_be_complete()) {
      upload->fail("a wait ends before the offset has moved");
    }
  } catch (const std::system_error& error) {
    const bool timed_out = error.code() == std::make_error_code(std::errc::timed_out);
    if (timed_out && must_end && !is_dead()) upload->fail("a wait does not end");
    if (!timed_out) allow(upload, error);
  }
}

/// Sees what stands all the while, and nothing that does not.
Task<void> Client::list() {
  std::vector<std::pair<Upload*, Facts>> before;
  for (Upload* const upload : life_.model.all()) before.emplace_back(&use(*upload), *upload);
  std::map<std::string, tidemark::Upload> listed;
  try {
    std::optional<UploadId> after;
    do {
      const std::size_t limit = chance().between(1, 20);
      UploadPage page = co_await perhaps_stopped(storage_.list_uploads(after, limit));
      if (is_dead()) co_return;
      if (page.uploads.size() > limit) throw Violation("a page has more uploads than it may");
      for (const tidemark::Upload& each : page.uploads) {
        const std::string id(each.id.view());
        const bool in_order = listed.empty() || listed.rbegin()->first < id;
        if (!in_order) throw Violation(id + " is listed twice, or out of order");
        listed.emplace(id, each);
      }
      after = page.next;
    } while (after);
  } catch (const std::system_error& error) {
    co_return allow(nullptr, error);
  }
  for (const auto& [upload, facts] : before) {
    const auto found = listed.extract(upload->id);
    if (found) {
      check_facts(*upload, facts, found.mapped());
      continue;
    }
    const bool stood = facts.presence == Presence::there && upload->presence == Presence::there &&
                       !upload->may_have_expired(life_.machine.latest_system_now(), facts.expiry);
    if (stood) upload->fail("a list lacks it");
  }
  for (const auto& [id, each] : listed) {
    if (life_.model.find(id) == nullptr) throw Violation(id + " is listed, and was never made");
  }
}

Task<void> Client::list_expired() {
  std::vector<std::pair<Upload*, Facts>> before;
  for (Upload* const upload : life_.model.all()) before.emplace_back(&use(*upload), *upload);
  std::vector<UploadId> listed;
  const SystemTime now = life_.machine.system_now();
  const std::uint64_t shifts = life_.machine.calendar_shifts();
  try {
    listed = co_await perhaps_stopped(storage_.get_expired_uploads());
  } catch (const std::system_error& error) {
    co_return allow(nullptr, error);
  }
  if (is_dead()) co_return;
  const SystemTime latest = life_.machine.latest_system_now();
  for (const auto& [upload, facts] : before) {
    const auto times = std::ranges::count(listed, UploadId(upload->id));
    if (times > 1) upload->fail("it has expired twice");
    const bool may_be = !facts.complete && facts.presence != Presence::gone &&
                        upload->may_have_expired(latest, facts.expiry);
    if (times == 1 && !may_be) upload->fail("it is listed as expired");
    // Whatever it is set to: its expiry has passed, and it has no length to reach.
    const bool must_be =
        life_.machine.calendar_shifts() == shifts && facts.presence == Presence::there &&
        upload->presence == Presence::there && !upload->length && !upload->may_have_length &&
        !upload->is_foreign &&
        !upload->expiry.any(facts.expiry, [now](const auto& at) { return !at || *at > now; });
    if (times == 0 && must_be) co_await check_cleaned(*upload, now);
  }
}

/// An upload that had expired by `now` was not listed: then somebody has removed it.
Task<void> Client::check_cleaned(const Upload& upload, SystemTime now) {
  try {
    const auto found = co_await storage_.get_upload(upload.id);
    if (is_dead() || upload.presence != Presence::there) co_return;
    if (found && found->expires_at <= now) upload.fail("it has expired, and is not listed");
  } catch (const std::system_error& error) {
    allow(nullptr, error);
  }
}

/// Counts never go back, and hold what this client was told.
Task<void> Client::count() {
  const StorageStats now = storage_.stats();
  co_await schedule();
  if (is_dead()) co_return;
  const bool grows =
      now.uploads_created >= stats_.uploads_created + std::exchange(created_, 0) &&
      now.uploads_completed >= stats_.uploads_completed &&
      now.uploads_deleted >= stats_.uploads_deleted && now.appends >= stats_.appends &&
      now.bytes_committed >= stats_.bytes_committed + std::exchange(bytes_, 0) &&
      now.conflicts >= stats_.conflicts && now.errors >= stats_.errors &&
      now.take_overs >= stats_.take_overs && now.commit_groups >= stats_.commit_groups &&
      now.checkpoints >= stats_.checkpoints;
  if (!grows) throw Violation("the statistics count less than was answered");
  const bool fits = now.append_latency.total() >= stats_.append_latency.total() &&
                    now.commit_latency.total() >= stats_.commit_latency.total();
  if (!fits) throw Violation("a histogram has lost what it counted");
  stats_ = now;
}

}  // namespace tidemark::sim
