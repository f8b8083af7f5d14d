#include <algorithm>
#include <cstddef>
#include <exception>
#include <span>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <tidemark/engine/sleep_for.hpp>
#include <tidemark/engine/stop.hpp>
#include <tidemark/io/file_lock.hpp>
#include <tidemark/storage/detail/failure.hpp>
#include <tidemark/storage/detail/json_text.hpp>
#include <tidemark/storage/file_url_storage.hpp>
#include <tidemark/storage/storage_error.hpp>

namespace tidemark {
namespace {

/// What the file holds, in its order.
struct Contents {
  using Entry = std::pair<std::string, std::string>;

  std::vector<Entry>::iterator find(std::string_view fingerprint) {
    return std::find_if(urls.begin(), urls.end(),
                        [&](const Entry& entry) { return entry.first == fingerprint; });
  }

  std::vector<Entry> urls;
  std::optional<std::uint32_t> mode;  // Of the file, if there is one.
};

std::string to_json(const std::vector<Contents::Entry>& urls) {
  if (urls.empty()) return "{}";
  std::string text = "{";
  for (const auto& [fingerprint, url] : urls) {
    text += text.size() == 1 ? "\n  " : ",\n  ";
    detail::append_json_string(text, fingerprint);
    text += ": ";
    detail::append_json_string(text, url);
  }
  return text + "\n}";
}

std::filesystem::path absolute_file(const std::filesystem::path& path) {
  const std::filesystem::path name = path.filename();
  if (name.empty() || name == "." || name == "..") {
    throw StorageError(Errc::invalid_argument, "FileURLStorage", "",
                       "'" + path.string() + "' names no file");
  }
  return std::filesystem::absolute(path);
}

}  // namespace

/// One operation: the store while it is locked.
class FileURLStorage::Session {
 public:
  Session(FileURLStorage& store, const char* operation)
      : store_(store),
        operation_(std::string(operation) + " in '" + store.path_.string() + "'"),
        name_(store.path_.filename().string()) {}
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
  /// Others try only now and then. So that they meet a free lock also while this store is used
  /// without a pause, the lock stays free for as long as it was held.
  ~Session() {
    if (!lock_.owns_lock()) return;
    const TimePoint now = executor().environment().now();
    store_.free_until_ =
        now + std::min<std::chrono::nanoseconds>(now - locked_at_, FileLock::k_longest_pause);
  }

  Executor& executor() { return store_.executor_; }

  Task<void> lock(FileLock::Mode mode);
  Task<Contents> load();
  Task<void> save(const Contents& contents);

  void require_text(std::string_view text) const {
    if (!detail::is_wtf8(text)) fail(Errc::invalid_argument, "the text is not UTF-8");
  }
  /// Throws what is being handled as what users are told.
  [[noreturn]] void rethrow() const {
    detail::throw_as_storage_error(std::current_exception(), operation_.c_str(), "");
  }

 private:
  [[noreturn]] void fail(Errc code, std::string_view why) const {
    throw StorageError(code, operation_, "", why);
  }
  Task<void> write_temporary(std::string_view text, std::optional<std::uint32_t> mode);

  FileURLStorage& store_;
  const std::string operation_;
  const std::string name_;
  const std::string temporary_name_ = name_ + ".tmp";
  AsyncMutex::Guard turn_;
  Directory folder_;
  FileLock lock_;
  TimePoint locked_at_;
};

Task<void> FileURLStorage::Session::lock(FileLock::Mode mode) {
  Environment& environment = executor().environment();
  const TimePoint deadline = environment.now() + k_lock_timeout;
  try {
    Task<AsyncMutex::Guard> turn = store_.turn_.lock();
    turn_ = co_await with_timeout(std::move(turn), k_lock_timeout);
    co_await sleep_for(store_.free_until_ - environment.now());
    std::filesystem::path parent = store_.path_.parent_path();
    folder_ = co_await Directory::open(std::move(parent), false);
    const std::string lock_name = name_ + ".lock";
    lock_ = co_await FileLock::open(folder_, lock_name.c_str(), Directory::Open::always, deadline,
                                    mode);
  } catch (const std::system_error& error) {
    if (error.code() != std::errc::timed_out) throw;
    fail(Errc::lock_timeout, "others keep it locked");
  }
  locked_at_ = environment.now();
}

Task<Contents> FileURLStorage::Session::load() {
  Contents contents;
  File file;
  try {
    file = co_await folder_.open_for_reading(name_.c_str());
  } catch (const std::system_error& error) {
    if (error.code() != std::errc::no_such_file_or_directory) throw;
    co_return contents;
  }
  const FileStatus status = co_await file.status();
  if (status.size > k_max_bytes) fail(Errc::quota_exceeded, "the file is larger than is read");
  std::string text(static_cast<std::size_t>(status.size), '\0');
  const auto bytes = std::as_writable_bytes(std::span(text));
  text.resize(co_await file.read_at(0, bytes));
  contents.urls = detail::parse_string_object(text, operation_);
  contents.mode = status.mode & 07777U;
  co_return contents;
}

Task<void> FileURLStorage::Session::save(const Contents& contents) {
  const std::string text = to_json(contents.urls);
  if (text.size() > k_max_bytes) fail(Errc::quota_exceeded, "the file would grow too large");
  // A process that died may have left one, and the kernel may still write to it: begin a new file.
  co_await folder_.unlink(temporary_name_.c_str());
  std::exception_ptr error;
  try {
    co_await write_temporary(text, contents.mode);
    co_await folder_.rename(temporary_name_.c_str(), name_.c_str());
  } catch (...) {
    error = std::current_exception();
  }
  if (error) {
    co_await folder_.unlink(temporary_name_.c_str());
    std::rethrow_exception(error);
  }
  co_await folder_.sync();
}

Task<void> FileURLStorage::Session::write_temporary(std::string_view text,
                                                    std::optional<std::uint32_t> mode) {
  constexpr std::uint32_t k_new_file_mode = 0666;
  File file = co_await folder_.open_file(temporary_name_.c_str(), Directory::Open::exclusive,
                                         mode.value_or(k_new_file_mode));
  if (mode) co_await file.change_mode(*mode);  // The umask took its part.
  const auto bytes = std::as_bytes(std::span(text));
  co_await file.write_at(0, bytes);
  co_await file.sync_data();
}

FileURLStorage::FileURLStorage(Engine& engine, const std::filesystem::path& path)
    : executor_(engine.executor()), path_(absolute_file(path)) {}

Task<std::optional<std::string>> FileURLStorage::get_url(std::string fingerprint) {
  Session session(*this, "get_url");
  session.require_text(fingerprint);
  try {
    co_await session.lock(FileLock::Mode::shared);
    Contents contents = co_await session.load();
    const auto found = contents.find(fingerprint);
    if (found == contents.urls.end()) co_return std::nullopt;
    co_return std::move(found->second);
  } catch (...) {
    session.rethrow();
  }
}

Task<void> FileURLStorage::set_url(std::string fingerprint, std::string url) {
  Session session(*this, "set_url");
  session.require_text(fingerprint);
  session.require_text(url);
  try {
    co_await session.lock(FileLock::Mode::exclusive);
    Contents contents = co_await session.load();
    const auto found = contents.find(fingerprint);
    if (found == contents.urls.end()) {
      contents.urls.emplace_back(std::move(fingerprint), std::move(url));
    } else {
      found->second = std::move(url);
    }
    co_await session.save(contents);
  } catch (...) {
    session.rethrow();
  }
}

Task<void> FileURLStorage::remove_url(std::string fingerprint) {
  Session session(*this, "remove_url");
  session.require_text(fingerprint);
  try {
    co_await session.lock(FileLock::Mode::exclusive);
    Contents contents = co_await session.load();
    const auto found = contents.find(fingerprint);
    if (found == contents.urls.end()) co_return;
    contents.urls.erase(found);
    co_await session.save(contents);
  } catch (...) {
    session.rethrow();
  }
}

}  // namespace tidemark
