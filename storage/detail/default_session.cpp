#include <tidemark/engine/stop.hpp>
#include <tidemark/storage/detail/default_session.hpp>
#include <tidemark/storage/detail/whole_upload.hpp>

namespace tidemark::detail {
namespace {

UploadState state_of(const Upload& upload) {
  return {.offset = upload.offset, .length = upload.length, .expires_at = upload.expires_at};
}

}  // namespace

Task<UploadState> DefaultSession::hold(TimePoint) {
  co_return state_of(co_await require_upload(storage_, id(), operation()));
}

Task<void> DefaultSession::write_piece(std::uint64_t offset, std::span<const std::byte> bytes,
                                       bool) {
  co_await with_stop(storage_.write_chunk(id(), offset, bytes), stop_token());
}

Task<OffsetMove> DefaultSession::commit_to(std::uint64_t from, std::uint64_t to) {
  // Durability::ordered is answered as `full`: the backend's own operations tell no more.
  if (options().durability != Durability::none) co_await storage_.sync(id());
  const bool moved = co_await storage_.update_offset_atomic(id(), from, to);
  // A deferred length may have been told meanwhile.
  const Upload upload = co_await require_upload(storage_, id(), operation());
  co_return OffsetMove{moved, state_of(upload)};
}

}  // namespace tidemark::detail
