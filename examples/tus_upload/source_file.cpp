#include "source_file.hpp"

#include <algorithm>
#include <stdexcept>
#include <system_error>
#include <utility>

#include <openssl/evp.h>
#include <openssl/sha.h>

#include <tidemark/io/directory.hpp>

#include "../sha256.hpp"

using namespace tidemark;

namespace examples {
namespace {

std::string sha256_of(std::span<const std::byte> bytes) {
  Sha256 sha256;
  sha256.update(bytes);
  return sha256.hex();
}

std::string sha1_of(std::span<const std::byte> bytes) {
  std::string digest(SHA_DIGEST_LENGTH, '\0');
  auto* const out = reinterpret_cast<unsigned char*>(digest.data());
  if (EVP_Digest(bytes.data(), bytes.size(), out, nullptr, EVP_sha1(), nullptr) != 1) {
    throw std::runtime_error("libcrypto refuses SHA-1");
  }
  return digest;
}

}  // namespace

Task<std::unique_ptr<SourceFile>> SourceFile::open(Engine& engine, std::filesystem::path path,
                                                   std::size_t pieces, std::size_t chunk_bytes) {
  const std::string name = path.filename();
  try {
    Directory folder = co_await Directory::open(path.parent_path(), false);
    File file = co_await folder.open_for_reading(name.c_str());
    const FileStatus status = co_await file.status();
    co_return std::make_unique<SourceFile>(engine, std::move(file), status, pieces, chunk_bytes);
  } catch (const std::system_error& error) {
    throw std::system_error(error.code(), path.string());
  }
}

SourceFile::SourceFile(Engine& engine, File file, const FileStatus& status, std::size_t pieces,
                       std::size_t chunk_bytes)
    : file_(std::move(file)),
      status_(status),
      chunk_bytes_(chunk_bytes),
      buffers_(file_.executor(), engine.options().bytes_in_flight) {
  // The cuts depend on nothing but the size, so that a part that an earlier run began is continued
  // also when the chunks have another size by now.
  const std::uint64_t count = std::clamp<std::uint64_t>(status.size, 1, pieces);
  const std::uint64_t longer = status.size % count;  // The first ones, by a byte.
  std::uint64_t begin = 0;
  for (std::uint64_t i = 0; i < count; ++i) {
    const std::uint64_t length = status.size / count + (i < longer ? 1 : 0);
    pieces_.push_back({begin, length, {}});
    begin += length;
  }
}

Task<void> SourceFile::digest(ProgressBar& bar) {
  bar.begin("reading", 0);
  Sha256 whole;
  for (Piece& piece : pieces_) {
    for (std::uint64_t offset = 0; offset < piece.length; offset += chunk_bytes_) {
      const Buffer chunk = co_await read_chunk(piece, offset);
      whole.update(chunk.bytes());
      piece.sha256.push_back(sha256_of(chunk.bytes()));
      bar.show(piece.begin + offset + chunk.size());
    }
  }
  sha256_ = whole.hex();
}

Task<Chunk> SourceFile::read(const Piece& piece, std::uint64_t offset) {
  Chunk chunk;
  chunk.skipped = offset % chunk_bytes_;
  chunk.buffer = co_await read_chunk(piece, offset - chunk.skipped);
  const std::string sha256 = sha256_of(chunk.buffer.bytes());
  const FileStatus status = co_await file_.status();
  if (sha256 != piece.sha256.at(offset / chunk_bytes_) || status.size != status_.size ||
      status.modified_at != status_.modified_at) {
    throw std::runtime_error("the file changed while it was sent");
  }
  chunk.sha1 = sha1_of(chunk.bytes());
  co_return chunk;
}

/// The chunk that begins at `offset`.
Task<Buffer> SourceFile::read_chunk(const Piece& piece, std::uint64_t offset) {
  const std::uint64_t bytes = std::min<std::uint64_t>(chunk_bytes_, piece.length - offset);
  Buffer buffer = co_await buffers_.acquire(bytes);
  buffer.resize(bytes);
  const std::size_t got = co_await file_.read_at(piece.begin + offset, buffer.bytes());
  if (got < bytes) throw std::runtime_error("the file became shorter while it was read");
  co_return buffer;
}

}  // namespace examples
