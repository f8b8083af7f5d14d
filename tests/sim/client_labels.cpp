// Steps of a client that set what is kept beside the bytes.

#include <optional>
#include <string>
#include <utility>

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
  if (upload == nullptr || upload->is_relabelled || upload->is_contested()) co_return;
  std::optional<SystemTime> at;
  if (chance().once_in(2)) at = some_expiry(life_.machine);
  const std::size_t place = upload->expiry.add(at);
  trace(life_, *upload, at ? "set expiry" : "set no expiry");
  upload->is_relabelled = true;
  try {
    co_await perhaps_stopped(storage_.set_expiry(upload->id, at));
    if (!is_dead()) upload->expiry.acknowledge(place);
  } catch (const std::system_error& error) {
    allow(upload, error);
  }
  upload->is_relabelled = false;
}

}  // namespace tidemark::sim
