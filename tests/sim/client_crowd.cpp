// A step of a client that has many uploads made stable at once.

#include <memory>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <tidemark/engine/when_all.hpp>
#include <tidemark/storage/detail/sync_group.hpp>

#include "client_steps.hpp"
#include "client_support.hpp"

namespace tidemark::sim {

namespace {

constexpr std::uint64_t k_crowd_bytes = 2000;
// So many that one sync is for many of them, whoever comes first.
constexpr std::size_t k_crowd = 2 * detail::SyncGroup::k_many;

}  // namespace

/// Makes an upload with stable bytes above its offset: what comes over them changes no size.
Task<void> Client::leave_tail(Upload& upload) {
  upload.length = 2 * k_crowd_bytes;
  Metadata metadata;
  co_await storage_.create_upload(upload.id, upload.length, std::move(metadata));
  if (!is_dead() && upload.presence == Upload::Presence::tried) {
    upload.presence = Upload::Presence::there;
  }
  KnownChecksum wrong(false);
  const std::string bytes = Piece{0, k_crowd_bytes, life_.model.new_seed()}.bytes();
  co_await storage_.append(upload.id, 0, as_bytes(bytes), {.checksum = &wrong});
  co_await storage_.sync(upload.id);
}

/// In two writes, so that they are not stable by themselves.
Task<void> Client::write_halves(Upload& upload, UploadWriter& writer, Piece piece) {
  upload.tried.push_back(piece);
  trace(life_, upload, "crowd " + text_of(piece));
  const std::string bytes = piece.bytes();
  const std::span<const std::byte> all = as_bytes(bytes);
  co_await writer.write(all.first(all.size() / 2));
  co_await writer.write(all.subspan(all.size() / 2));
}

Task<void> Client::commit_one(Upload& upload, UploadWriter& writer, Piece piece) {
  try {
    const AppendResult result = co_await writer.commit();
    note(upload, piece, 0, result, Durability::full);
  } catch (const std::system_error& error) {
    allow(&upload, error);
  }
}

Task<void> Client::commit_many() {
  std::vector<Upload*> uploads;
  for (std::size_t i = 0; i < k_crowd; ++i) {
    uploads.push_back(&use(life_.model.add(chance())));
    uploads.back()->is_private = true;
  }
  Upload* upload = nullptr;
  try {
    std::vector<std::unique_ptr<UploadWriter>> writers;
    std::vector<Task<void>> commits;
    for (Upload* const each : uploads) co_await leave_tail(*(upload = each));
    for (Upload* const each : uploads) {
      upload = each;
      writers.push_back(co_await storage_.open_writer(each->id));
      const Piece piece{0, k_crowd_bytes, life_.model.new_seed()};
      co_await write_halves(*each, *writers.back(), piece);
      commits.push_back(commit_one(*each, *writers.back(), piece));
    }
    co_await when_all(std::move(commits));
  } catch (const std::system_error& error) {
    allow(upload, error);
  }
  for (Upload* const each : uploads) each->is_private = false;
}

}  // namespace tidemark::sim
