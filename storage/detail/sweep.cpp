#include <chrono>
#include <system_error>

#include <tidemark/engine/perform.hpp>
#include <tidemark/storage/detail/upload_files.hpp>

namespace tidemark::detail {
namespace {

constexpr const char* k_operation = "sweep";
constexpr std::size_t k_page_rows = 256;

struct Sweep {
  Store& store;
  const SweepOptions options;
  const SystemTime young_since;  // What was changed later is left alone.
  SweepReport report = {};

  Executor& executor() const { return store.executor(); }
};

Task<bool> has_row(Store& store, UploadId id) {
  auto work = [&id](UploadRows& rows) { return rows.exists(id); };
  co_return co_await store.reads->run(work);
}

/// Removes a file that has no row, unless somebody holds it or it is young.
Task<void> sweep_file(Sweep& sweep, UploadId id) {
  Store& store = sweep.store;
  UploadTurns::Turn turn(store.core.turns, id);
  if (!turn.try_take()) co_return;
  HeldUpload held(store, id, k_operation);
  bool locked = false;
  try {
    locked = co_await held.lock(TimePoint::min());
  } catch (const std::system_error& error) {  // Somebody has it, or it is no file of ours.
    if (is_canceled(error)) throw;
  }
  if (!locked || held.status().modified_at > sweep.young_since) co_return;
  if (sweep.options.dry_run) {
    const bool listed = co_await has_row(store, id);
    if (listed) co_return;
  } else {
    const std::optional<UploadState> row = co_await store.settle(id, Store::Next::remove);
    if (row) co_return;
    co_await store.folder.unlink(id.c_str());
    co_await held.close();
  }
  sweep.report.orphan_files.push_back(id);
}

/// Removes a row at offset 0 without a file.
Task<void> sweep_row(Sweep& sweep, UploadId id) {
  Store& store = sweep.store;
  UploadTurns::Turn turn(store.core.turns, id);
  if (!turn.try_take()) co_return;
  const bool dry_run = sweep.options.dry_run;
  const SystemTime young_since = sweep.young_since;
  auto work = [&id, dry_run, young_since](UploadRows& rows) {
    const std::optional<Upload> upload = rows.find(id);
    const bool orphan = upload && upload->offset == 0 && upload->created_at <= young_since;
    return orphan && (dry_run || rows.erase(id));
  };
  const std::optional<FileStatus> file = co_await store.folder.status(id.c_str());
  if (file) co_return;
  const bool removed = co_await store.commits->run_delete(work);
  if (removed) sweep.report.orphan_rows.push_back(id);
}

Task<void> check_row(Sweep& sweep, const Upload& upload) {
  // The row was read first, and a file is never cut below a committed offset.
  const std::optional<FileStatus> file = co_await sweep.store.folder.status(upload.id.c_str());
  if (file && file->is_regular && file->size >= upload.offset) co_return;
  if (!file && upload.offset == 0) {
    if (!upload.completed) co_await sweep_row(sweep, upload.id);
    co_return;
  }
  const bool still = co_await has_row(sweep.store, upload.id);
  if (still) sweep.report.corrupt.push_back(upload.id);
}

Task<void> sweep_files(Sweep& sweep) {
  const std::vector<std::string> names = co_await sweep.store.folder.list();
  for (const std::string& name : names) {
    const std::optional<UploadId> id = UploadId::parse(name);
    if (!id) continue;
    const bool listed = co_await has_row(sweep.store, *id);
    if (!listed) co_await sweep_file(sweep, *id);
  }
}

Task<void> sweep_rows(Sweep& sweep) {
  std::optional<UploadId> after;
  while (true) {
    auto list = [&after](UploadRows& rows) { return rows.list(after, k_page_rows); };
    const RowPage page = co_await sweep.store.reads->run(list);
    if (!page.last) co_return;
    after = page.last;
    for (const Upload& upload : page.uploads) co_await check_row(sweep, upload);
    auto& corrupt = sweep.report.corrupt;
    corrupt.insert(corrupt.end(), page.corrupt.begin(), page.corrupt.end());
  }
}

}  // namespace

Task<SweepReport> sweep(Store& store, SweepOptions options) {
  const bool same = co_await store.folder.is_still_there();
  if (!same) {
    throw StorageError(Errc::corrupt, k_operation, "",
                       "the upload folder is not the one that was opened");
  }
  const SystemTime now = store.environment().system_now();
  const auto age = std::clamp(options.min_age, std::chrono::seconds(0),
                              std::chrono::floor<std::chrono::seconds>(now.time_since_epoch()));
  Sweep sweep{store, options, now - age};
  co_await sweep_files(sweep);
  co_await sweep_rows(sweep);
  co_return std::move(sweep.report);
}

}  // namespace tidemark::detail
