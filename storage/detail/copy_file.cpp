#include <algorithm>
#include <array>
#include <cinttypes>
#include <cstdio>
#include <optional>
#include <stop_token>
#include <system_error>

#include <tidemark/engine/perform.hpp>
#include <tidemark/storage/detail/copy_file.hpp>

namespace tidemark::detail {
namespace {

/// One step inside the kernel, so that a stop is heeded soon; and one through memory.
constexpr std::uint64_t k_range_bytes = std::uint64_t{16} << 20;
constexpr std::size_t k_copy_bytes = std::size_t{1} << 20;

bool is_unsupported(const std::system_error& error) {
  const std::error_code& code = error.code();
  return code == std::errc::cross_device_link || code == std::errc::invalid_argument ||
         code == std::errc::operation_not_supported || code == std::errc::function_not_supported;
}

/// One step inside the kernel; nothing where it cannot do that.
Task<std::optional<std::uint64_t>> copy_range(File& from, std::uint64_t offset,
                                              std::uint64_t length, File& to, std::uint64_t at) {
  try {
    co_return co_await from.copy_range_to(offset, to, at, std::min(length, k_range_bytes));
  } catch (const std::system_error& error) {
    if (!is_unsupported(error)) throw;
    co_return std::nullopt;
  }
}

/// With a buffer for one step only: appends wait for them as well.
Task<std::uint64_t> copy_through(BufferPool& buffers, File& from, std::uint64_t offset,
                                 std::uint64_t length, File& to, std::uint64_t at) {
  Buffer buffer = co_await buffers.acquire(k_copy_bytes);
  buffer.resize(static_cast<std::size_t>(std::min<std::uint64_t>(length, buffer.capacity())));
  const std::size_t got = co_await from.read_at(offset, buffer.bytes());
  buffer.resize(got);
  co_await to.write_at(at, buffer.bytes());
  co_return got;
}

}  // namespace

Task<void> copy_file(Store& store, File& from, std::uint64_t length, File& to, std::uint64_t at) {
  const std::stop_token stop = co_await current_stop_token();
  bool in_kernel = true;  // Until it refuses.
  std::uint64_t done = 0;
  while (done < length) {
    if (stop.stop_requested()) throw operation_canceled();
    std::optional<std::uint64_t> step;
    if (in_kernel) step = co_await copy_range(from, done, length - done, to, at + done);
    in_kernel = step.has_value();
    if (!step) step = co_await copy_through(store.copies, from, done, length - done, to, at + done);
    if (*step == 0) throw StorageError(Errc::corrupt, "copy", "", "a file became shorter");
    done += *step;
  }
}

std::string temporary_name(Environment& environment) {
  std::array<char, 32> name{};
  std::snprintf(name.data(), name.size(), ".tidemark-%016" PRIx64, environment.random());
  return name.data();
}

}  // namespace tidemark::detail
