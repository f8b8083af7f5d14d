// Steps of a client that set what is kept beside the bytes.

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <tidemark/engine/when_all.hpp>

#include "client_steps.hpp"
#include "client_support.hpp"

namespace tidemark::sim {

Task<void> Client::set_metadata() {
  Upload* const upload = pick();
  // Of two at a time nobody knows the last.
  if (upload == nullptr || upload->is_relabelled) co_return;
  Metadata metadata = some_metadata(life_);
  const std::size_t place = upload->metadata.add(text_of(metadata));
  trace(life_, *upload, "set metadata " + text_of(metadata));
  upload->is_relabelled = true;
  try {
    co_await perhaps_stopped(storage_.set_metadata(upload->id, std::move(metadata)));
    if (!is_dead()) upload->metadata.acknowledge(place);
  } catch (const std::system_error& error) {
    allow(upload, error);
  }
  upload->is_relabelled = false;
}

Task<void> Client::set_expiry() {
  Upload* const upload = pick();
  if (upload != nullptr) co_await set_expiry_of(*upload);
}

Task<void> Client::set_expiry_of(Upload& upload) {
  if (upload.is_relabelled || upload.is_contested()) co_return;
  std::optional<SystemTime> at;
  if (chance().once_in(2)) at = some_expiry(life_.machine);
  const std::size_t place = upload.expiry.add(at);
  trace(life_, upload, at ? "set expiry" : "set no expiry");
  upload.is_relabelled = true;
  try {
    co_await perhaps_stopped(storage_.set_expiry(upload.id, at));
    if (!is_dead()) upload.expiry.acknowledge(place);
  } catch (const std::system_error& error) {
    allow(&upload, error);
  }
  upload.is_relabelled = false;
}

/// Gives an upload that has expired more time, while it is cleaned up.
Task<void> Client::extend_expired() {
  const SystemTime now = life_.machine.system_now();
  std::vector<Upload*> all = life_.model.all();
  std::erase_if(all, [now](const Upload* upload) {
    return upload->presence != Upload::Presence::there || upload->may_be_complete() ||
           upload->is_private || !upload->may_have_expired(now, upload->expiry.first());
  });
  if (all.empty()) co_return;
  std::vector<Task<void>> both;
  both.push_back(clean_expired());
  both.push_back(set_expiry_of(use(*all[chance().below(all.size())])));
  co_await when_all(std::move(both));
}

Task<void> Client::clean_expired() {
  try {
    co_await perhaps_stopped(storage_.cleanup_expired_uploads());
  } catch (const std::system_error& error) {
    allow(nullptr, error);
  }
}

}  // namespace tidemark::sim
