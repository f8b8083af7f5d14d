#include <algorithm>
#include <exception>
#include <list>
#include <set>
#include <string>
#include <utility>

#include <tidemark/engine/assert.hpp>
#include <tidemark/engine/perform.hpp>
#include <tidemark/engine/stop.hpp>
#include <tidemark/storage/detail/default_session.hpp>
#include <tidemark/storage/detail/row_backup.hpp>
#include <tidemark/storage/detail/storage_core.hpp>
#include <tidemark/storage/detail/whole_upload.hpp>
#include <tidemark/storage/storage.hpp>

namespace tidemark {
namespace {

using detail::require_upload;
using std::chrono::milliseconds;
using Turns = detail::UploadTurns;

constexpr milliseconds k_first_pause{5};
constexpr milliseconds k_longest_pause{100};

Task<void> wait_for_move(Turns::Use& use) {
  const bool moved = co_await use.offset_moved().wait();
  if (!moved) throw operation_canceled();
}

Task<void> wait_for_move(Turns::Use& use, std::chrono::nanoseconds longest) {
  try {
    co_await with_timeout(wait_for_move(use), longest);
  } catch (const std::system_error& error) {
    if (error.code() != std::errc::timed_out) throw;
  }
}

/// See WriteSession.
class SessionWriter final : public UploadWriter {
 public:
  explicit SessionWriter(std::shared_ptr<detail::WriteSession> session)
      : session_(std::move(session)), abandoning_(session_->prepare_abandoning()) {}
  ~SessionWriter() override {
    if (is_open_) session_->abandon(abandoning_);
  }

  Executor& executor() const { return session_->executor(); }

  Task<void> open() {
    co_await session_->open();
    is_open_ = true;
  }
  Task<bool> write(std::span<const std::byte> bytes) override { return session_->write(bytes); }
  Task<bool> write(Buffer buffer) override { return session_->write(std::move(buffer)); }
  Task<AppendResult> commit() override { return session_->commit(); }
  Task<AppendResult> close() override {
    const AppendResult result = co_await session_->close();
    is_open_ = false;
    co_return result;
  }
  std::uint64_t offset() const override { return session_->offset(); }
  std::stop_token stop_token() const override { return session_->stop_token(); }

 private:
  const std::shared_ptr<detail::WriteSession> session_;
  const Scope::Prepared abandoning_;
  bool is_open_ = false;
};

/// Reads through the storage, and so ends with the upload.
class DefaultReader final : public UploadReader {
 public:
  DefaultReader(Storage& storage, const UploadId& id, std::uint64_t committed)
      : storage_(storage), id_(id), committed_(committed) {}

  Executor& executor() const { return storage_.executor(); }

  Task<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> bytes) override {
    const Upload upload = co_await require_upload(storage_, id_, "read");
    committed_ = upload.offset;
    co_return co_await storage_.read_at(id_, offset, bytes);
  }
  std::uint64_t committed_offset() const override { return committed_; }

 private:
  Storage& storage_;
  const UploadId id_;
  std::uint64_t committed_;
};

}  // namespace

Storage::Storage(Executor& executor)
    : executor_(executor), core_(std::make_unique<detail::StorageCore>(executor)) {}

Storage::~Storage() = default;

Task<bool> Storage::update_offset_atomic(UploadId id, std::uint64_t expected, std::uint64_t next) {
  if (next < expected || next > k_max_length) {
    throw StorageError(Errc::invalid_argument, "update of offset", id.view(),
                       "the next offset is below the expected one, or too large");
  }
  Turns::Use use(core_->turns, id);
  const AsyncMutex::Guard row = co_await use.row_mutex().lock();
  const std::optional<Upload> upload = co_await get_upload(id);
  if (!upload || upload->offset != expected) co_return false;
  co_await update_offset(id, next);
  co_return true;
}

Task<AppendResult> Storage::append(UploadId id, std::uint64_t offset,
                                   std::span<const std::byte> bytes, AppendOptions options) {
  const TimePoint began = executor_.environment().now();
  const WriterOptions writer{
      .offset = offset, .durability = options.durability, .checksum = options.checksum};
  const std::shared_ptr<detail::WriteSession> session = make_session(id, writer, "append");
  bool canceled = false;
  try {
    co_await session->open();
  } catch (const std::system_error& error) {
    if (!is_canceled(error)) throw;
    canceled = true;
  }
  if (canceled) {
    const Upload upload = co_await without_stop(require_upload(*this, id, "append"));
    co_return AppendResult{AppendStatus::canceled, upload.offset, upload.completed};
  }
  const AppendResult result = co_await session->append(bytes);
  core_->count([&](StorageStats& stats) {
    stats.append_latency.record(executor_.environment().now() - began);
  });
  co_return result;
}

Task<std::unique_ptr<UploadWriter>> Storage::open_writer(UploadId id, WriterOptions options) {
  auto writer = std::make_unique<SessionWriter>(make_session(id, options, "write"));
  co_await writer->open();
  co_return writer;
}

Task<std::unique_ptr<UploadReader>> Storage::open_reader(UploadId id) {
  const Upload upload = co_await require_upload(*this, id, "read");
  co_return std::make_unique<DefaultReader>(*this, id, upload.offset);
}

Task<std::size_t> Storage::read_at(UploadId id, std::uint64_t offset, std::span<std::byte> bytes) {
  const Upload upload = co_await require_upload(*this, id, "read");
  if (offset >= upload.offset || bytes.empty()) co_return 0;
  const std::uint64_t end = offset + std::min<std::uint64_t>(bytes.size(), upload.offset - offset);
  // Only the beginning can be asked for.
  const std::vector<std::byte> beginning = co_await read_file(id, end);
  if (beginning.size() != end) {
    throw StorageError(Errc::corrupt, "read", id.view(), "it has fewer bytes than its offset");
  }
  std::copy(beginning.begin() + static_cast<std::ptrdiff_t>(offset), beginning.end(),
            bytes.begin());
  co_return beginning.size() - offset;
}

Task<std::uint64_t> Storage::wait_for_offset(UploadId id, std::uint64_t beyond) {
  Turns::Use use(core_->turns, id);
  std::chrono::nanoseconds pause = k_first_pause;
  for (;;) {
    const std::uint64_t moves = use.moves();
    const Upload upload = co_await require_upload(*this, id, "wait");
    if (upload.completed || upload.offset > beyond) co_return upload.offset;
    if (use.moves() != moves) continue;  // It moved while the row was on its way here.
    co_await wait_for_move(use, pause);
    pause = std::min<std::chrono::nanoseconds>(2 * pause, k_longest_pause);
  }
}

Task<void> Storage::concatenate(UploadId id, std::vector<UploadId> parts, Metadata metadata) {
  // In order of the ids, so that two that share parts cannot wait for each other.
  std::set<UploadId> ids(parts.begin(), parts.end());
  if (parts.empty() || !ids.insert(id).second) {
    throw StorageError(Errc::invalid_argument, "concatenate", id.view(),
                       parts.empty() ? "there are no parts" : "it is one of its parts");
  }
  std::list<Turns::Turn> taken;
  for (const UploadId& each : ids) co_await taken.emplace_back(core_->turns, each).wait();
  co_await detail::join_parts(*this, id, std::move(parts), std::move(metadata));
}

Task<void> Storage::release_to(UploadId id, std::filesystem::path path) {
  if (!path.has_filename()) {
    throw StorageError(Errc::invalid_argument, "release", id.view(), "the path names no file");
  }
  Turns::Turn turn(core_->turns, id);
  co_await turn.wait();
  co_await detail::copy_out(*this, id, std::move(path));
  co_await without_stop(delete_upload(id));
}

Task<void> Storage::set_expiry(UploadId id, std::optional<SystemTime> expires_at) {
  Turns::Turn turn(core_->turns, id);
  co_await turn.wait();
  Upload upload = co_await require_upload(*this, id, "set expiry");
  Metadata metadata = upload.metadata;
  co_await without_stop(detail::remake(*this, std::move(upload), std::move(metadata), expires_at));
}

Task<void> Storage::set_metadata(UploadId id, Metadata metadata) {
  Turns::Turn turn(core_->turns, id);
  co_await turn.wait();
  Upload upload = co_await require_upload(*this, id, "set metadata");
  const std::optional<SystemTime> expires_at = upload.expires_at;
  co_await without_stop(detail::remake(*this, std::move(upload), std::move(metadata), expires_at));
}

Task<SweepReport> Storage::sweep(SweepOptions) {
  co_return SweepReport{};
}

Task<void> Storage::backup(std::filesystem::path path) {
  co_await detail::back_up_rows(*this, std::move(path));
}

StorageStats Storage::stats() const {
  return core_->stats();
}

Task<void> Storage::close(std::chrono::nanoseconds grace) {
  co_await with_timeout(core_->endings.join(), grace);
}

std::shared_ptr<detail::WriteSession> Storage::make_session(const UploadId& id,
                                                            const WriterOptions& options,
                                                            const char* operation) {
  return std::make_shared<detail::DefaultSession>(*this, *core_, id, options, operation);
}

detail::StorageCore& Storage::core() const {
  return *core_;
}

bool Storage::is_in_use(const UploadId& id) const {
  return core_->turns.is_taken(id);
}

}  // namespace tidemark
