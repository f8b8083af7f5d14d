#pragma once

#include <filesystem>
#include <memory>

#include <tidemark/engine/engine.hpp>
#include <tidemark/io/buffer.hpp>
#include <tidemark/storage/storage.hpp>
#include <tidemark/storage/storage_options.hpp>

namespace tidemark {

namespace detail {
class OrderedTails;
class Store;
}  // namespace detail

/// Uploads as files in a folder, their rows in a SQLite database; safe between processes, and on
/// disk what the Python package resumable-upload reads and writes (README, "Disk formats").
///
///     StorageOptions options{.db_path = "uploads.db"};  // See "Quickstart" in the README.
///     auto storage = co_await SQLiteStorage::open(engine, std::move(options));
///     ...
///     co_await storage->close(5s);
///
/// Every operation of Storage is overridden that a file and a lock make better. What differs:
/// - An append holds the upload's `flock`, so other processes wait for it, up to `lock_timeout`.
///   A take-over works between the writers of one storage object.
/// - A delete ends the present writer (`taken_over`) and goes before those who wait for the upload,
///   which then get `not_found`.
/// - Durability::ordered holds for an `append` without a checksum: the upload and its lock are
/// kept,
///   and settled within 8 MiB or 1 s, or when another operation needs the upload. Writers always
///   commit fully.
/// - update_offset and update_offset_atomic make the bytes stable themselves before they commit.
/// - An upload that failed to sync bytes which another writer had committed throws `io_error` from
///   then on, because these bytes may be lost: look at the file, then open the storage anew.
///
/// Errors: as Storage; `shutting_down` for operations begun after `close`.
/// Thread safety and lifetime: as Storage.
class SQLiteStorage final : public Storage {
 public:
  /// Opens or makes the database and the folder; an older database gets the columns it lacks.
  /// Throws `corrupt` for a file that is no database of uploads, `busy` when it stays locked,
  /// `invalid_argument` for a network file system and for a database in the upload folder whose
  /// name could be an upload's, `no_space`, `io_error`.
  static Task<std::unique_ptr<SQLiteStorage>> open(Engine& engine, StorageOptions options);
  ~SQLiteStorage() override;

  /// Aligned memory for UploadWriter::write(Buffer&&), bounded by the engine's `bytes_in_flight`.
  BufferPool& buffers();

  Task<void> create_upload(UploadId id, std::optional<std::uint64_t> length, Metadata metadata,
                           std::optional<SystemTime> expires_at = std::nullopt) override;
  Task<std::optional<Upload>> get_upload(UploadId id) override;
  Task<void> update_offset(UploadId id, std::uint64_t offset) override;
  Task<bool> update_offset_atomic(UploadId id, std::uint64_t expected, std::uint64_t next) override;
  Task<void> set_length(UploadId id, std::uint64_t length) override;
  Task<void> delete_upload(UploadId id) override;
  Task<void> write_chunk(UploadId id, std::uint64_t offset,
                         std::span<const std::byte> bytes) override;
  Task<void> sync(UploadId id) override;
  Task<std::vector<std::byte>> read_file(UploadId id, std::size_t max_bytes) override;
  std::filesystem::path get_file_path(UploadId id) const override;
  Task<UploadPage> list_uploads(std::optional<UploadId> after, std::size_t limit) override;
  Task<std::vector<UploadId>> get_expired_uploads() override;
  Task<std::size_t> cleanup_expired_uploads() override;

  Task<AppendResult> append(UploadId id, std::uint64_t offset, std::span<const std::byte> bytes,
                            AppendOptions options = {}) override;
  Task<std::unique_ptr<UploadWriter>> open_writer(UploadId id, WriterOptions options = {}) override;
  Task<std::uint64_t> wait_for_offset(UploadId id, std::uint64_t beyond) override;
  Task<std::unique_ptr<UploadReader>> open_reader(UploadId id) override;
  Task<std::size_t> read_at(UploadId id, std::uint64_t offset, std::span<std::byte> bytes) override;
  /// At most 512 different parts, whose blocks are shared where the file system can.
  Task<void> concatenate(UploadId id, std::vector<UploadId> parts, Metadata metadata) override;
  Task<void> release_to(UploadId id, std::filesystem::path path) override;
  Task<void> set_expiry(UploadId id, std::optional<SystemTime> expires_at) override;
  Task<void> set_metadata(UploadId id, Metadata metadata) override;
  /// Throws `corrupt` when the upload folder is not the one that was opened.
  Task<SweepReport> sweep(SweepOptions options = {}) override;
  Task<void> backup(std::filesystem::path path) override;
  StorageStats stats() const override;
  Task<void> close(std::chrono::nanoseconds grace) override;

 private:
  explicit SQLiteStorage(Executor& executor);

  std::shared_ptr<detail::WriteSession> make_session(const UploadId& id,
                                                     const WriterOptions& options,
                                                     const char* operation) override;
  /// Awaits `task` as a user's operation: refused once closing, its errors as users are told.
  template <class T>
  Task<T> run(const char* operation, std::optional<UploadId> id, Task<T> task);
  /// The same, after what this process has answered ahead of the row is settled.
  template <class T>
  Task<T> settle_and_run(const char* operation, UploadId id, Task<T> task);
  void refuse_if_closing(const char* operation, const std::optional<UploadId>& id);

  std::unique_ptr<detail::Store> store_;
  std::unique_ptr<detail::OrderedTails> tails_;
};

}  // namespace tidemark
