#include <algorithm>
#include <exception>
#include <system_error>
#include <utility>

#include <tidemark/storage/detail/failure.hpp>
#include <tidemark/storage/detail/file_reader.hpp>

namespace tidemark::detail {
namespace {

constexpr const char* k_operation = "read";

Task<File> open_data(Store& store, UploadId id) {
  for (bool looked_before = false;; looked_before = true) {
    try {
      co_return co_await store.folder.open_for_reading(id.c_str());
    } catch (const std::system_error& error) {
      if (is_no_file(error)) {
        throw StorageError(Errc::corrupt, k_operation, id.view(), "its file is no regular file");
      }
      if (error.code() != std::errc::no_such_file_or_directory) throw;
    }
    const std::optional<UploadState> state = co_await store.find_state(id);
    if (!state || state->offset == 0)
      throw StorageError(Errc::not_found, k_operation, id.view(), "");
    if (!looked_before) continue;  // Another process may have made it since.
    throw StorageError(Errc::corrupt, k_operation, id.view(), "its file is missing");
  }
}

class FileReader final : public UploadReader {
 public:
  FileReader(Store& store, const UploadId& id, File file, const FileStatus& status,
             std::uint64_t committed)
      : store_(store), id_(id), file_(std::move(file)), status_(status), committed_(committed) {}

  Executor& executor() const { return store_.executor(); }

  Task<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> bytes) override {
    const Store::Running running(store_);
    try {
      co_return co_await read(offset, bytes);
    } catch (...) {
      throw_as_storage_error(std::current_exception(), k_operation, id_.view());
    }
  }
  std::uint64_t committed_offset() const override { return committed_; }

 private:
  Task<std::size_t> read(std::uint64_t offset, std::span<std::byte> bytes) {
    const bool beyond = offset > committed_ || bytes.size() > committed_ - offset;
    if (beyond) co_await look();
    if (offset >= committed_) co_return 0;
    bytes = bytes.first(
        static_cast<std::size_t>(std::min<std::uint64_t>(bytes.size(), committed_ - offset)));
    const std::size_t got = co_await file_.read_at(offset, bytes);
    if (got != bytes.size()) {
      throw StorageError(Errc::corrupt, k_operation, id_.view(), "its file became shorter");
    }
    co_return got;
  }

  /// Whether the upload has grown. The row tells only of the file that stands at the name.
  Task<void> look() {
    const std::optional<UploadState> state = co_await store_.find_state(id_);
    if (!state) co_return;
    const std::optional<FileStatus> named = co_await store_.folder.status(id_.c_str());
    if (named && named->same_file(status_)) committed_ = std::max(committed_, state->offset);
  }

  Store& store_;
  const UploadId id_;
  File file_;
  const FileStatus status_;
  std::uint64_t committed_;
};

}  // namespace

Task<std::unique_ptr<UploadReader>> open_file_reader(Store& store, UploadId id) {
  while (true) {
    File file = co_await open_data(store, id);
    const FileStatus status = co_await file.status();
    const std::optional<UploadState> state = co_await store.find_state(id);
    if (!state) throw StorageError(Errc::not_found, k_operation, id.view(), "");
    // The row tells only of the file that stands at the name.
    const std::optional<FileStatus> named = co_await store.folder.status(id.c_str());
    if (named && !named->same_file(status)) continue;  // Deleted, and made anew.
    co_return std::make_unique<FileReader>(store, id, std::move(file), status, state->offset);
  }
}

}  // namespace tidemark::detail
