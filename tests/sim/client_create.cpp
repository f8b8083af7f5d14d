// Steps of a client that make uploads, alone or against others.

#include <optional>
#include <string>
#include <utility>

#include "client_steps.hpp"
#include "client_support.hpp"

namespace tidemark::sim {

using Presence = Upload::Presence;

Task<void> Client::create() {
  Upload& upload = use(life_.model.add(chance()));
  std::optional<SystemTime> expires_at;
  if (!chance().once_in(4))
    upload.length = chance().once_in(20) ? 0 : some_size(chance()) * chance().between(1, 3);
  if (chance().once_in(5)) {
    expires_at = some_expiry(life_.machine);
    upload.expiry = History(expires_at);
  }
  Metadata metadata;
  if (chance().once_in(2)) metadata = some_metadata(life_);
  upload.metadata = History(text_of(metadata));
  if (chance().once_in(4)) life_.contested = &upload;
  return make(upload, expires_at, std::move(metadata), 0);
}

Task<void> Client::create_again() {
  Upload* const upload = std::exchange(life_.contested, nullptr);
  if (!upload->may_have_rival()) co_return;
  use(*upload);
  upload->has_rivals = true;
  Metadata metadata = some_metadata(life_);
  const std::size_t place = upload->metadata.add(text_of(metadata));
  co_await make(*upload, std::nullopt, std::move(metadata), place);
}

Task<void> Client::make(Upload& upload, std::optional<SystemTime> expires_at, Metadata metadata,
                        std::size_t place) {
  trace(life_, upload, "create");
  ++upload.makers;
  try {
    co_await perhaps_stopped(
        storage_.create_upload(upload.id, upload.length, std::move(metadata), expires_at));
    trace(life_, upload, "created");
    ++created_;
    if (!is_dead()) note_made(upload, place);
  } catch (const std::system_error& error) {
    const bool is_refused = error.code() == Errc::already_exists;
    if (is_refused && !is_dead()) {
      note_refused(upload, place);
    } else {
      upload.maker_failed = true;
      allow(&upload, error);
    }
  }
  --upload.makers;
}

void Client::note_made(Upload& upload, std::size_t place) {
  if (upload.is_made || presence_before_ == Presence::there) upload.fail("it was made twice");
  upload.is_made = true;
  upload.metadata.acknowledge(place);
  if (upload.presence == Presence::tried) upload.presence = Presence::there;
  if (upload.length == 0) upload.complete = true;
}

void Client::note_refused(Upload& upload, std::size_t place) {
  trace(life_, upload, "refused");
  upload.metadata.withdraw(place);
  if (!upload.has_rivals) upload.fail("it was refused, and nobody else made it");
  const bool is_last = upload.makers == 1;
  if (is_last && upload.presence == Presence::tried && !upload.maker_failed) {
    upload.fail("all who made it were refused");
  }
}

}  // namespace tidemark::sim
