#include <algorithm>
#include <exception>
#include <system_error>
#include <utility>

#include <tidemark/engine/perform.hpp>
#include <tidemark/engine/stop.hpp>
#include <tidemark/storage/detail/failure.hpp>
#include <tidemark/storage/detail/file_reader.hpp>
#include <tidemark/storage/detail/file_session.hpp>
#include <tidemark/storage/detail/open_store.hpp>
#include <tidemark/storage/detail/ordered_tails.hpp>
#include <tidemark/storage/detail/row_backup.hpp>
#include <tidemark/storage/detail/row_operations.hpp>
#include <tidemark/storage/detail/upload_files.hpp>
#include <tidemark/storage/sqlite_storage.hpp>

namespace tidemark {

using detail::Store;

SQLiteStorage::SQLiteStorage(Executor& executor) : Storage(executor) {}

SQLiteStorage::~SQLiteStorage() = default;

Task<std::unique_ptr<SQLiteStorage>> SQLiteStorage::open(Engine& engine, StorageOptions options) {
  Executor* const executor = co_await current_executor();
  std::unique_ptr<SQLiteStorage> storage(new SQLiteStorage(*executor));
  const std::size_t bytes_in_flight = engine.options().bytes_in_flight;
  try {
    storage->store_ =
        co_await detail::open_store(storage->core(), std::move(options), bytes_in_flight);
  } catch (...) {
    detail::throw_as_storage_error(std::current_exception(), "open", "");
  }
  storage->tails_ = std::make_unique<detail::OrderedTails>(*storage->store_);
  co_return storage;
}

Task<void> SQLiteStorage::close(std::chrono::nanoseconds grace) {
  if (std::exchange(store_->closing, true)) co_return;
  co_await store_->drain();
  co_await tails_->settle_all();
  co_await Storage::close(grace);
  store_->closed = true;
  co_await store_->drain();
  co_await detail::close_store(*store_);
}

BufferPool& SQLiteStorage::buffers() {
  return store_->buffers;
}

template <class T>
Task<T> SQLiteStorage::run(const char* operation, std::optional<UploadId> id, Task<T> task) {
  refuse_if_closing(operation, id);
  const Store::Running running(*store_);
  try {
    co_return co_await std::move(task);
  } catch (...) {
    if (!detail::is_canceled(std::current_exception())) {
      core().count([](StorageStats& stats) { ++stats.errors; });
    }
    detail::throw_as_storage_error(std::current_exception(), operation, id ? id->view() : "");
  }
}

template <class T>
Task<T> SQLiteStorage::settle_and_run(const char* operation, UploadId id, Task<T> task) {
  if (!tails_->empty()) co_await tails_->settle(id);
  co_return co_await run(operation, std::optional(id), std::move(task));
}

void SQLiteStorage::refuse_if_closing(const char* operation, const std::optional<UploadId>& id) {
  if (!store_->closing) return;
  throw StorageError(Errc::shutting_down, operation, id ? id->view() : "", "");
}

Task<void> SQLiteStorage::create_upload(UploadId id, std::optional<std::uint64_t> length,
                                        Metadata metadata, std::optional<SystemTime> expires_at) {
  detail::NewUpload upload = detail::new_row(*store_, id, length, metadata, expires_at);
  co_await run("create", id, detail::create(*store_, std::move(upload)));
}

Task<std::optional<Upload>> SQLiteStorage::get_upload(UploadId id) {
  const bool ahead = tails_->offset_of(id).has_value();
  std::optional<Upload> upload = co_await run("get", id, detail::find_upload(*store_, id));
  // Settled meanwhile: the row may have been read before that.
  const bool settled = ahead && !tails_->offset_of(id);
  if (settled) upload = co_await run("get", id, detail::find_upload(*store_, id));
  if (upload) {
    upload->offset = std::max(upload->offset, tails_->offset_of(id).value_or(0));
  }
  co_return upload;
}

Task<void> SQLiteStorage::update_offset(UploadId id, std::uint64_t offset) {
  return settle_and_run("update of offset", id, detail::raise_offset(*store_, id, offset));
}

Task<bool> SQLiteStorage::update_offset_atomic(UploadId id, std::uint64_t expected,
                                               std::uint64_t next) {
  return settle_and_run("update of offset", id, detail::move_offset(*store_, id, expected, next));
}

Task<void> SQLiteStorage::set_length(UploadId id, std::uint64_t length) {
  return settle_and_run("set length", id, detail::set_length(*store_, id, length));
}

Task<void> SQLiteStorage::delete_upload(UploadId id) {
  return settle_and_run("delete", id, detail::erase(*store_, id));
}

Task<void> SQLiteStorage::write_chunk(UploadId id, std::uint64_t offset,
                                      std::span<const std::byte> bytes) {
  return settle_and_run("write", id, detail::write_chunk(*store_, id, offset, bytes));
}

Task<void> SQLiteStorage::sync(UploadId id) {
  return settle_and_run("sync", id, detail::sync_file(*store_, id));
}

Task<std::vector<std::byte>> SQLiteStorage::read_file(UploadId id, std::size_t max_bytes) {
  return settle_and_run("read", id, detail::read_beginning(*store_, id, max_bytes));
}

std::filesystem::path SQLiteStorage::get_file_path(UploadId id) const {
  return store_->options.upload_dir / id.view();
}

Task<UploadPage> SQLiteStorage::list_uploads(std::optional<UploadId> after, std::size_t limit) {
  const auto ahead = tails_->offsets();  // A tail may be settled after its row was read.
  UploadPage page = co_await run("list", std::nullopt, detail::list(*store_, after, limit));
  for (Upload& upload : page.uploads) {
    const auto before = ahead.find(upload.id);
    if (before != ahead.end()) upload.offset = std::max(upload.offset, before->second);
    upload.offset = std::max(upload.offset, tails_->offset_of(upload.id).value_or(0));
  }
  co_return page;
}

Task<AppendResult> SQLiteStorage::append(UploadId id, std::uint64_t offset,
                                         std::span<const std::byte> bytes, AppendOptions options) {
  refuse_if_closing("append", id);
  const Store::Running running(*store_);
  const Durability durability = options.durability.value_or(store_->options.durability);
  if (durability == Durability::ordered && options.checksum == nullptr) {
    try {
      co_return co_await tails_->append(id, offset, bytes);
    } catch (const std::system_error& error) {
      if (!is_canceled(error)) throw;
    }
    const std::optional<Upload> upload = co_await without_stop(get_upload(id));
    if (!upload) throw StorageError(Errc::not_found, "append", id.view(), "");
    co_return AppendResult{AppendStatus::canceled, upload->offset, upload->completed};
  }
  if (!tails_->empty()) co_await tails_->settle(id);
  co_return co_await Storage::append(id, offset, bytes, options);
}

Task<std::unique_ptr<UploadWriter>> SQLiteStorage::open_writer(UploadId id, WriterOptions options) {
  refuse_if_closing("write", id);
  const Store::Running running(*store_);
  if (!tails_->empty()) co_await tails_->settle(id);
  co_return co_await Storage::open_writer(id, options);
}

Task<std::uint64_t> SQLiteStorage::wait_for_offset(UploadId id, std::uint64_t beyond) {
  const Store::Running running(*store_);  // When it closes, the next look ends this.
  const std::uint64_t offset = co_await Storage::wait_for_offset(id, beyond);
  // It may have been answered only, and a reader gives what is committed.
  if (!tails_->empty()) co_await tails_->settle(id);
  co_return offset;
}

std::shared_ptr<detail::WriteSession> SQLiteStorage::make_session(const UploadId& id,
                                                                  const WriterOptions& options,
                                                                  const char* operation) {
  return std::make_shared<detail::FileSession>(*store_, id, options, operation);
}

Task<std::unique_ptr<UploadReader>> SQLiteStorage::open_reader(UploadId id) {
  return settle_and_run("read", id, detail::open_file_reader(*store_, id));
}

Task<std::size_t> SQLiteStorage::read_at(UploadId id, std::uint64_t offset,
                                         std::span<std::byte> bytes) {
  const std::unique_ptr<UploadReader> reader = co_await open_reader(id);
  co_return co_await reader->read_at(offset, bytes);
}

Task<void> SQLiteStorage::concatenate(UploadId id, std::vector<UploadId> parts, Metadata metadata) {
  detail::NewUpload upload = detail::new_row(*store_, id, std::nullopt, metadata, std::nullopt);
  upload.parts = std::move(parts);
  for (const UploadId& part : upload.parts) co_await tails_->settle(part);
  co_await run("concatenate", id, detail::join_files(*store_, std::move(upload)));
}

Task<void> SQLiteStorage::release_to(UploadId id, std::filesystem::path path) {
  return settle_and_run("release", id, detail::release_file(*store_, id, std::move(path)));
}

Task<void> SQLiteStorage::set_expiry(UploadId id, std::optional<SystemTime> expires_at) {
  return run("set expiry", id, detail::set_expiry(*store_, id, expires_at));
}

Task<void> SQLiteStorage::set_metadata(UploadId id, Metadata metadata) {
  return run("set metadata", id, detail::set_metadata(*store_, id, std::move(metadata)));
}

Task<std::vector<UploadId>> SQLiteStorage::get_expired_uploads() {
  return run("get expired", std::nullopt, detail::find_expired(*store_));
}

Task<std::size_t> SQLiteStorage::cleanup_expired_uploads() {
  return run("cleanup", std::nullopt, detail::erase_expired(*store_));
}

Task<SweepReport> SQLiteStorage::sweep(SweepOptions options) {
  return run("sweep", std::nullopt, detail::sweep(*store_, options));
}

Task<void> SQLiteStorage::backup(std::filesystem::path path) {
  return run("backup", std::nullopt, detail::back_up_database(*store_, std::move(path)));
}

StorageStats SQLiteStorage::stats() const {
  StorageStats stats = Storage::stats();
  store_->add_to(stats);
  return stats;
}

}  // namespace tidemark
