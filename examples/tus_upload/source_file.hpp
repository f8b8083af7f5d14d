#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <tidemark/engine/engine.hpp>
#include <tidemark/io/buffer.hpp>
#include <tidemark/io/file.hpp>

#include "../progress_bar.hpp"

namespace examples {

/// A range of a file that makes one upload, and the digests of its chunks.
struct Piece {
  std::uint64_t begin = 0;
  std::uint64_t length = 0;
  std::vector<std::string> sha256;  // In hexadecimal; the last chunk may be short.
};

/// Bytes to send in one request. They end where a chunk of the piece ends.
struct Chunk {
  std::span<const std::byte> bytes() const { return buffer.bytes().subspan(skipped); }

  tidemark::Buffer buffer;  // The whole chunk of the piece.
  std::size_t skipped = 0;  // How much of it the server has already.
  std::string sha1;         // Of `bytes`, 20 of them.
};

/// The file to send. All of it is digested before any of it is sent, and what is then handed out is
/// compared with that: so the bytes that are sent, in this run and in those that it goes on from,
/// are the bytes that the fingerprint names, also when somebody writes to the file meanwhile.
///
/// Errors: std::system_error of reading; std::runtime_error when the file changed.
/// Thread safety: the tasks run on the file's executor; between them, the accessors are for any
/// thread. Lifetime: the engine outlives it.
class SourceFile {
 public:
  /// The file is cut into `pieces` of about one size, but none is empty unless the file is.
  static tidemark::Task<std::unique_ptr<SourceFile>> open(tidemark::Engine& engine,
                                                          std::filesystem::path path,
                                                          std::size_t pieces,
                                                          std::size_t chunk_bytes);
  SourceFile(tidemark::Engine& engine, tidemark::File file, const tidemark::FileStatus& status,
             std::size_t pieces, std::size_t chunk_bytes);

  tidemark::Executor& executor() const { return file_.executor(); }
  std::uint64_t size() const { return status_.size; }
  const std::vector<Piece>& pieces() const { return pieces_; }
  /// In hexadecimal, once `digest` has finished.
  const std::string& sha256() const { return sha256_; }

  /// Once, before `read`.
  tidemark::Task<void> digest(ProgressBar& bar);
  /// What comes at `offset` of `piece`.
  tidemark::Task<Chunk> read(const Piece& piece, std::uint64_t offset);

 private:
  tidemark::Task<tidemark::Buffer> read_chunk(const Piece& piece, std::uint64_t offset);

  tidemark::File file_;
  const tidemark::FileStatus status_;  // As it was opened.
  const std::size_t chunk_bytes_;
  tidemark::BufferPool buffers_;
  std::vector<Piece> pieces_;
  std::string sha256_;
};

}  // namespace examples
