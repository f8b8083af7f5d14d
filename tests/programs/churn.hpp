#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include <tidemark/engine/when_all.hpp>
#include <tidemark/storage/sqlite_storage.hpp>

namespace tidemark::test {

inline constexpr std::size_t k_churned_bytes = std::size_t{60} << 10;  // Of one upload's metadata.
inline constexpr int k_churned_uploads = 16;

inline Task<void> churn_one(SQLiteStorage& storage, std::string id, int commits,
                            const std::function<void()>& after_commit) {
  Metadata none;
  co_await storage.create_upload(id, 1, std::move(none));
  for (int i = 0; i < commits; ++i) {
    // All pages of the text change with each commit.
    const char letter = static_cast<char>('a' + i % 26);
    Metadata metadata;
    metadata.set("text", std::string(k_churned_bytes, letter));
    co_await storage.set_metadata(id, std::move(metadata));
    after_commit();
  }
}

/// Commits rows back to back, at least `commits` of them, by tasks for some uploads at once. A
/// group of commits holds one of each upload at most, so the write-ahead log grows by
/// k_churned_bytes with every commit, until it is written back.
inline Task<void> churn(SQLiteStorage& storage, std::string name, int commits,
                        const std::function<void()>& after_commit) {
  std::vector<Task<void>> tasks;
  for (int i = 0; i < k_churned_uploads; ++i) {
    tasks.push_back(churn_one(storage, name + "-" + std::to_string(i),
                              (commits + k_churned_uploads - 1) / k_churned_uploads, after_commit));
  }
  co_await when_all(std::move(tasks));
}

}  // namespace tidemark::test
