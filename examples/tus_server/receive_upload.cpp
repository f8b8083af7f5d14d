#include "receive_upload.hpp"

#include <chrono>
#include <memory>
#include <stop_token>
#include <utility>

#include <boost/asio/post.hpp>

#include <tidemark/engine/asio.hpp>

namespace tus {
namespace {

using namespace std::chrono_literals;
using tidemark::AppendResult;
using tidemark::AppendStatus;
using tidemark::Buffer;
using tidemark::SQLiteStorage;
using tidemark::Task;
using tidemark::UploadId;
using tidemark::UploadWriter;

// What a crash can cost.
constexpr std::uint64_t k_commit_bytes = std::uint64_t{8} << 20;
constexpr Clock::duration k_commit_interval = 1s;

// Each of these is one visit to the storage's thread: several steps in one cost a wake-up less.

struct Opened {
  std::unique_ptr<UploadWriter> writer;
  Buffer piece;
};

Task<Opened> open(SQLiteStorage& storage, UploadId id, tidemark::WriterOptions options,
                  std::size_t piece_bytes) {
  Opened opened;
  opened.writer = co_await storage.open_writer(id, options);
  if (piece_bytes > 0) opened.piece = co_await storage.buffers().acquire(piece_bytes);
  co_return opened;
}

struct Written {
  bool goes_on = false;
  Buffer piece;
};

Task<Written> write(SQLiteStorage& storage, UploadWriter& writer, Buffer piece, bool commit,
                    std::size_t next_piece_bytes) {
  Written written;
  written.goes_on = co_await writer.write(std::move(piece));
  if (written.goes_on && commit) {
    written.goes_on = (co_await writer.commit()).status == AppendStatus::committed;
  }
  if (written.goes_on && next_piece_bytes > 0) {
    written.piece = co_await storage.buffers().acquire(next_piece_bytes);
  }
  co_return written;
}

Task<AppendResult> close(SQLiteStorage& storage, UploadWriter& writer, Buffer last) {
  static_cast<void>(storage);  // The task is bound to its first parameter's executor.
  if (last.size() > 0) co_await writer.write(std::move(last));
  co_return co_await writer.close();
}

/// Interrupts the client when the upload is taken over. Called on the engine's thread.
struct Interrupt {
  std::weak_ptr<ClientSocket> client;
  std::uint64_t request;
  IoExecutor executor;

  void operator()() const {
    asio::post(executor, [client = client, request = request] {
      const auto alive = client.lock();
      if (alive && alive->request == request) alive->interrupt();
    });
  }
};

}  // namespace

Awaitable<AppendResult> receive_upload(SQLiteStorage& storage, UploadId id, std::uint64_t offset,
                                       ClientSocket& client, RequestBody& body,
                                       BodyDigest* digest) {
  tidemark::WriterOptions options{
      .offset = offset, .take_over = true, .durability = {}, .checksum = digest};
  const std::size_t first_bytes = body.is_open() && body.has_arrived() ? body.piece_bytes() : 0;
  Opened opened = co_await tidemark::async(open(storage, id, options, first_bytes), k_await);
  const std::unique_ptr<UploadWriter> writer = std::move(opened.writer);
  Buffer piece = std::move(opened.piece);
  const std::stop_token taken_over = writer->stop_token();
  const std::stop_callback interrupt(
      taken_over, Interrupt{client.weak_from_this(), client.request, client.socket.get_executor()});

  std::uint64_t uncommitted = 0;
  Clock::time_point committed_at = Clock::now();
  bool goes_on = writer->offset() == offset;  // Else it has ended: the upload stands elsewhere.
  while (goes_on && body.is_open()) {
    if (!body.has_arrived()) {
      piece = Buffer();
      co_await body.wait(uncommitted > 0 ? k_commit_interval : Clock::duration::max() / 2);
      if (body.is_open() && !body.has_arrived() && uncommitted > 0) {
        const AppendResult result = co_await tidemark::async(writer->commit(), k_await);
        goes_on = result.status == AppendStatus::committed;
        uncommitted = 0;
        committed_at = Clock::now();
      }
      continue;
    }
    if (piece.capacity() == 0) {
      piece = co_await tidemark::async(storage.buffers().acquire(body.piece_bytes()), k_await);
    }
    const std::size_t size = co_await body.receive({piece.data(), piece.capacity()});
    piece.resize(size);
    if (size == 0 || !body.is_open()) continue;
    uncommitted += size;
    const bool commit = !digest && (uncommitted >= k_commit_bytes ||
                                    Clock::now() - committed_at >= k_commit_interval);
    const std::size_t next_bytes = body.has_arrived() ? body.piece_bytes() : 0;
    Written written = co_await tidemark::async(
        write(storage, *writer, std::move(piece), commit, next_bytes), k_await);
    goes_on = written.goes_on;
    piece = std::move(written.piece);
    if (!commit) continue;
    uncommitted = 0;
    committed_at = Clock::now();
  }
  if (digest && body.state() != RequestBody::State::complete) {
    piece = Buffer();
  } else if (digest && !digest->is_expected()) {
    digest->expect(parse_checksum(body.trailer("Upload-Checksum")));
  }
  co_return co_await tidemark::async(close(storage, *writer, std::move(piece)), k_await);
}

}  // namespace tus
