#pragma once

// Files as a test sees them from outside the library, and the errors of tasks.

#include <cstddef>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <span>
#include <string>
#include <string_view>
#include <system_error>

#include <tidemark/engine/sync_wait.hpp>

namespace tidemark::test {

inline std::string contents(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::system_error(errno, std::generic_category(), path.string());
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

inline void write_contents(const std::filesystem::path& path, std::string_view text) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << text;
  file.close();
  if (!file) throw std::system_error(errno, std::generic_category(), path.string());
}

inline std::span<const std::byte> as_bytes(std::string_view text) {
  return std::as_bytes(std::span(text));
}

/// Runs `task` and gives the code of the system_error that it throws; no error when it throws none.
template <class T>
std::error_code error_of(Executor& executor, Task<T> task) {
  try {
    static_cast<void>(sync_wait(executor, std::move(task)));
  } catch (const std::system_error& error) {
    return error.code();
  }
  return {};
}

inline std::size_t open_descriptors() {
  const std::filesystem::directory_iterator entries("/proc/self/fd");
  return static_cast<std::size_t>(std::distance(begin(entries), end(entries)));
}

}  // namespace tidemark::test
