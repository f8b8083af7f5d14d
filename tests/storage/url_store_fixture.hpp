#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include <tidemark/engine/sync_wait.hpp>
#include <tidemark/storage/file_url_storage.hpp>
#include <tidemark/storage/storage_error.hpp>

#include "../fault_driver.hpp"
#include "../file_tools.hpp"
#include "../temporary_folder.hpp"

namespace tidemark::test {

/// Its clock can be moved forward.
struct ClockEnvironment : FaultEnvironment {
  TimePoint now() override {
    return FaultEnvironment::now() + std::chrono::seconds(seconds_ahead.load());
  }
  std::atomic<int> seconds_ahead{0};
};

/// A store in a folder of its own, where there is none yet.
struct Store : BasicFaultFixture<ClockEnvironment> {
  explicit Store(const std::filesystem::path& at) : path(at), store(engine, path) {}

  void set(const std::string& fingerprint, const std::string& url) {
    sync_wait(executor, store.set_url(fingerprint, url));
  }
  std::optional<std::string> get(const std::string& fingerprint) {
    return sync_wait(executor, store.get_url(fingerprint));
  }
  void remove(const std::string& fingerprint) {
    sync_wait(executor, store.remove_url(fingerprint));
  }
  std::error_code set_error(const std::string& fingerprint, const std::string& url) {
    return error_of(executor, store.set_url(fingerprint, url));
  }
  std::error_code get_error(const std::string& fingerprint) {
    return error_of(executor, store.get_url(fingerprint));
  }
  std::error_code remove_error(const std::string& fingerprint) {
    return error_of(executor, store.remove_url(fingerprint));
  }
  std::string message(const std::string& fingerprint) {
    try {
      get(fingerprint);
    } catch (const StorageError& error) {
      return error.what();
    }
    return "";
  }

  std::filesystem::path path;
  FileURLStorage store;
};

struct StoreFolder {
  TemporaryFolder folder;
};
struct StoreFixture : StoreFolder, Store {
  StoreFixture() : Store(folder / "urls.json") {}

  std::vector<std::string> names() const {
    std::vector<std::string> all;
    for (const auto& entry : std::filesystem::directory_iterator(folder.path())) {
      all.push_back(entry.path().filename());
    }
    std::sort(all.begin(), all.end());
    return all;
  }
};

inline const std::vector<std::string> k_store_and_lock{"urls.json", "urls.json.lock"};

inline constexpr std::string_view k_two_urls =
    "{\n  \"a\": \"http://host/1\",\n  \"b\": \"http://host/2\"\n}";

}  // namespace tidemark::test
