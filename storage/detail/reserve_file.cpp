#include <cstddef>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#include <tidemark/storage/detail/reserve_file.hpp>

namespace tidemark::detail {
namespace {

constexpr int k_step_bytes = 64 << 10;

/// Fills an open file, and closes it.
bool fill(sqlite3_file* file) {
  const std::vector<std::byte> zeros(k_step_bytes);
  int code = SQLITE_OK;
  for (sqlite3_int64 at = 0; code == SQLITE_OK && at < ReserveFile::k_bytes; at += k_step_bytes) {
    code = file->pMethods->xWrite(file, zeros.data(), k_step_bytes, at);
  }
  if (code == SQLITE_OK) code = file->pMethods->xSync(file, SQLITE_SYNC_NORMAL);
  file->pMethods->xClose(file);
  return code == SQLITE_OK;
}

}  // namespace

ReserveFile::ReserveFile(const std::string& database_path, const char* vfs)
    : vfs_(sqlite3_vfs_find(vfs)) {
  const std::string name = database_path + "-reserve";
  std::vector<char> full(vfs_ == nullptr ? 0 : static_cast<std::size_t>(vfs_->mxPathname) + 1);
  if (vfs_ == nullptr) return;
  const int code =
      vfs_->xFullPathname(vfs_, name.c_str(), static_cast<int>(full.size()), full.data());
  if (code == SQLITE_OK || code == SQLITE_OK_SYMLINK) path_ = full.data();
}

void ReserveFile::set_aside() noexcept {
  const std::lock_guard lock(mutex_);
  if (path_.empty() || exists()) return;
  bool written = false;
  try {
    written = write();
  } catch (const std::bad_alloc&) {  // Later, then.
  }
  if (written) return;
  vfs_->xDelete(vfs_, path_.c_str(), 0);
  gave_back_ = true;
}

bool ReserveFile::release() noexcept {
  const std::lock_guard lock(mutex_);
  const bool gave_back = std::exchange(gave_back_, false);
  if (path_.empty() || !exists()) return gave_back;
  return vfs_->xDelete(vfs_, path_.c_str(), 0) == SQLITE_OK;
}

bool ReserveFile::exists() noexcept {
  int found = 0;
  return vfs_->xAccess(vfs_, path_.c_str(), SQLITE_ACCESS_EXISTS, &found) == SQLITE_OK &&
         found != 0;
}

bool ReserveFile::write() {
  const auto memory = std::make_unique<std::byte[]>(static_cast<std::size_t>(vfs_->szOsFile));
  auto* const file = reinterpret_cast<sqlite3_file*>(memory.get());
  // SQLite wants a kind; a transient database is synced and locked by nobody.
  constexpr int k_flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_TRANSIENT_DB;
  const int code = vfs_->xOpen(vfs_, path_.c_str(), file, k_flags, nullptr);
  if (code == SQLITE_OK) return fill(file);
  if (file->pMethods != nullptr) file->pMethods->xClose(file);
  return false;
}

}  // namespace tidemark::detail
