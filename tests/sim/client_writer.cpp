// A step of a client that writes with a writer.

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "client_steps.hpp"
#include "client_support.hpp"

namespace tidemark::sim {

struct Client::Writing {
  Upload& upload;
  UploadWriter& writer;
  const WriterOptions& options;
  const bool may_stay;
  const std::uint64_t begin = writer.offset();
  std::vector<Piece> pieces = {};
};

WriterOptions Client::some_options(const Upload& upload, Checksum* checksum) {
  WriterOptions options;
  options.take_over = chance().once_in(2);
  if (chance().once_in(8)) options.checksum = checksum;
  if (chance().once_in(4)) options.durability = Durability::ordered;  // It commits fully.
  if (chance().once_in(3)) {
    options.offset = chance().once_in(4) ? chance().below(5000) : upload.believed;
  }
  return options;
}

/// False when the writer takes no more.
Task<bool> Client::write_piece(Writing& writing) {
  Upload& upload = writing.upload;
  UploadWriter& writer = writing.writer;
  const std::uint64_t from = writer.offset();
  const std::uint64_t end = std::min(upload.length.value_or(k_max_length), k_max_length);
  const std::uint64_t size = std::min(some_size(chance()), end - std::min(end, from));
  if (size == 0) co_return false;
  const Piece piece{from, from + size, life_.model.new_seed()};
  writing.pieces.push_back(piece);
  if (writing.may_stay) upload.tried.push_back(piece);
  trace(life_, upload, "write " + text_of(piece));
  const std::string bytes = piece.bytes();
  Task<bool> write = writer.write(as_bytes(bytes));
  if (chance().once_in(3)) {
    Buffer buffer = co_await storage_.buffers().acquire(size);
    buffer.resize(size);
    std::ranges::copy(as_bytes(bytes), buffer.data());
    write = writer.write(std::move(buffer));
  }
  const bool goes_on = co_await perhaps_stopped(std::move(write));
  if (goes_on && writer.offset() != piece.to) upload.fail("a writer has not come to its end");
  if (goes_on && writing.options.checksum == nullptr && chance().once_in(3)) {
    co_await writer.commit();
  }
  co_return goes_on;
}

void Client::check_writer(const Writing& writing, const AppendResult& result,
                          std::uint64_t before) {
  Upload& upload = writing.upload;
  const std::vector<Piece>& pieces = writing.pieces;
  const std::optional<std::uint64_t>& expected = writing.options.offset;
  if (result.offset < before) upload.fail("a writer's answer is below what was acknowledged");
  if (expected && *expected != writing.begin && result.status == AppendStatus::committed) {
    upload.fail("a writer began at another offset than it expected");
  }
  const bool conflicts = result.status == AppendStatus::offset_conflict && pieces.empty();
  if (conflicts && (!expected || *expected == writing.begin)) {
    upload.fail("a writer that wrote nothing met another offset where it began");
  }
  if (upload.presence == Upload::Presence::gone) return;
  upload.believed = result.offset;
  if (result.completed) upload.complete = true;
  if (result.status != AppendStatus::committed) return;
  if (!writing.may_stay && !pieces.empty()) {
    upload.fail("a writer committed against its checksum");
  }
  for (const Piece& piece : pieces) {
    if (piece.to <= result.offset) upload.acknowledge(piece);
  }
  if (result.offset != writing.begin && (pieces.empty() || pieces.back().to != result.offset)) {
    upload.fail("a writer's offset is none that it wrote to");
  }
}

Task<void> Client::write() {
  Upload* const upload = pick();
  if (upload == nullptr) co_return;
  const std::uint64_t before = upload->durable;
  KnownChecksum checksum(chance().once_in(2));
  const WriterOptions options = some_options(*upload, &checksum);
  const bool may_stay = options.checksum == nullptr || checksum.matches();
  try {
    const std::unique_ptr<UploadWriter> writer =
        co_await perhaps_stopped(storage_.open_writer(upload->id, options));
    Writing writing{*upload, *writer, options, may_stay};
    bool goes_on = true;
    for (std::uint64_t i = chance().between(0, 4); i > 0 && goes_on; --i) {
      goes_on = co_await write_piece(writing);
    }
    if (chance().once_in(4)) co_return;  // Destroyed: it closes by itself.
    const AppendResult result = co_await writer->close();
    trace(life_, *upload, "writer: " + text_of(result));
    if (!is_dead()) check_writer(writing, result, before);
  } catch (const std::system_error& error) {
    allow(upload, error);
  }
}

}  // namespace tidemark::sim
