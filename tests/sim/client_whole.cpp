// Steps of a client that concern uploads as a whole, or none.

#include <algorithm>
#include <chrono>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "client_steps.hpp"
#include "client_support.hpp"
#include "judge.hpp"
#include "sim_vfs.hpp"

namespace tidemark::sim {

using namespace std::chrono_literals;
using Presence = Upload::Presence;

Task<void> Client::remove() {
  Upload* const upload = pick();
  if (upload == nullptr || upload->is_contested()) co_return;
  upload->presence = Presence::maybe_gone;
  upload->may_be_deleted = true;
  const bool was_being_made = upload->makers > 0;  // Then it may be deleted before it is made.
  trace(life_, *upload, "delete");
  try {
    co_await perhaps_stopped(storage_.delete_upload(upload->id));
    trace(life_, *upload, "deleted");
    if (!is_dead() && !was_being_made) upload->note_deleted();
  } catch (const std::system_error& error) {
    allow(upload, error);
  }
}

Task<void> Client::concatenate() {
  std::vector<UploadId> parts;
  std::vector<Upload*> sources;
  for (std::uint64_t i = chance().between(1, 3); i > 0; --i) {
    Upload* const part = pick_complete();
    if (part == nullptr) co_return;
    sources.push_back(part);
    parts.emplace_back(part->id);
  }
  Upload& upload = use(life_.model.add(chance()));
  upload.length = 0;
  for (const Upload* const source : sources) {
    std::vector<Piece> pieces = source->known;
    pieces.insert(pieces.end(), source->tried.begin(), source->tried.end());
    for (Piece piece : pieces) {
      piece.from += *upload.length;
      piece.to += *upload.length;
      piece.shift += *upload.length;
      upload.tried.push_back(piece);
    }
    *upload.length += *source->length;
  }
  if (*upload.length > k_max_length) {
    upload.presence = Presence::gone;
    co_return;
  }
  ++upload.makers;
  try {
    Metadata metadata;
    co_await perhaps_stopped(
        storage_.concatenate(upload.id, std::move(parts), std::move(metadata)));
    if (!is_dead()) {
      if (upload.presence == Presence::tried) upload.presence = Presence::there;
      upload.acknowledge_offset(*upload.length);
      upload.complete = true;
    }
  } catch (const std::system_error& error) {
    const bool part_left = std::ranges::any_of(
        sources, [](const Upload* part) { return part->presence != Presence::there; });
    if (error.code() != Errc::not_found || !part_left) allow(&upload, error);
  }
  --upload.makers;
}

Task<void> Client::release() {
  Upload* const upload = pick_complete();
  if (upload == nullptr || upload->is_contested()) co_return;
  upload->presence = Presence::maybe_gone;
  upload->released_to = "/sim/out-" + upload->id;
  trace(life_, *upload, "release");
  try {
    co_await perhaps_stopped(storage_.release_to(upload->id, upload->released_to));
    if (is_dead()) co_return;
    upload->presence = Presence::gone;
    upload->is_released = true;
  } catch (const std::system_error& error) {
    if (error.code() == Errc::already_exists) co_return;  // An earlier one has come half way.
    allow(upload, error);
  }
}

Task<void> Client::set_length() {
  Upload* const upload = pick();
  if (upload == nullptr || upload->length) co_return;
  const std::uint64_t more = chance().once_in(3) ? 0 : chance().below(3000);
  const std::uint64_t length = upload->believed + more;
  trace(life_, *upload, "set length " + std::to_string(length));
  upload->may_have_length = true;
  upload->least_length = std::min(upload->least_length, length);
  try {
    co_await storage_.set_length(upload->id, length);
    if (is_dead()) co_return;
    upload->length = length;
    if (upload->durable >= length) upload->complete = true;
  } catch (const std::system_error& error) {
    if (error.code() == Errc::invalid_argument) co_return;
    allow(upload, error);
  }
}

Task<void> Client::clean() {
  const bool after_failure = std::exchange(life_.failed, nullptr) != nullptr;
  try {
    if (chance().once_in(after_failure ? 8 : 2)) {
      co_await perhaps_stopped(storage_.cleanup_expired_uploads());
    } else {
      SweepOptions options;
      if (after_failure || chance().once_in(2)) options.min_age = 0s;
      co_await perhaps_stopped(storage_.sweep(options));
    }
  } catch (const std::system_error& error) {
    allow(nullptr, error);
  }
}

Task<void> Client::back_up() {
  const std::string path = "/sim/backup-" + std::to_string(life_.model.new_seed());
  std::vector<std::pair<Upload*, std::uint64_t>> before;
  for (Upload* const upload : life_.model.all()) {
    if (upload->presence == Presence::there && !upload->may_expire())
      before.emplace_back(&use(*upload), upload->durable);
  }
  try {
    co_await perhaps_stopped(storage_.backup(path));
  } catch (const std::system_error& error) {
    allow(nullptr, error);
    co_return;
  }
  if (is_dead()) co_return;
  const Rows rows = read_rows(life_.machine, SimVfs::k_name, path.c_str());
  for (const auto& [upload, durable] : before) {
    if (upload->presence != Presence::there) continue;
    const auto row = rows.find(upload->id);
    if (row == rows.end()) upload->fail("a backup lacks it");
    if (row->second.offset < durable) upload->fail("it stands lower in a backup");
  }
}

Task<void> Client::use_urls() {
  const std::string key = "key" + std::to_string(chance().below(6));
  std::set<std::optional<std::string>>& possible = life_.model.urls[key];
  try {
    if (chance().once_in(2)) {
      const std::optional<std::string> url = co_await perhaps_stopped(urls_.get_url(key));
      if (is_dead() || possible.empty() || possible.contains(url)) co_return;
      life_.report(key + ": the URL is none that was kept");
      co_return;
    }
    if (life_.model.busy_keys.contains(key)) co_return;  // Of two at a time nobody knows the last.
    life_.model.busy_keys.insert(key);
    std::optional<std::string> url;
    if (!chance().once_in(4)) url = "http://host/" + std::to_string(life_.model.new_seed());
    if (possible.empty()) possible.insert(std::nullopt);
    possible.insert(url);
    Task<void> change = url ? urls_.set_url(key, *url) : urls_.remove_url(key);
    co_await perhaps_stopped(std::move(change));
    if (!is_dead()) possible = {url};
  } catch (const std::system_error& error) {
    allow(nullptr, error);
  }
  life_.model.busy_keys.erase(key);
}

}  // namespace tidemark::sim
