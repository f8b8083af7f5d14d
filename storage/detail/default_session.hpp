#pragma once

#include <tidemark/storage/detail/write_session.hpp>
#include <tidemark/storage/storage.hpp>

namespace tidemark::detail {

/// A writer's hold on an upload of a backend that has only the first group of operations.
class DefaultSession final : public WriteSession {
 public:
  DefaultSession(Storage& storage, StorageCore& core, const UploadId& id,
                 const WriterOptions& options, const char* operation)
      : WriteSession(core, id, options, operation, {}), storage_(storage) {}

 private:
  Task<UploadState> hold(TimePoint deadline) override;
  Task<void> write_piece(std::uint64_t offset, std::span<const std::byte> bytes,
                         bool alone) override;
  Task<OffsetMove> commit_to(std::uint64_t from, std::uint64_t to) override;
  Task<void> confirm() override { co_return; }  // The offset was the backend's answer.
  void let_go() noexcept override {}

  Storage& storage_;
};

}  // namespace tidemark::detail
