#pragma once

#include <tidemark/storage/detail/held_upload.hpp>
#include <tidemark/storage/detail/write_session.hpp>

namespace tidemark::detail {

/// A writer's hold on an upload of a SQLiteStorage: the rules A1 to A6, in this order in a frame of
/// WriteSession. See HeldUpload.
class FileSession final : public WriteSession {
 public:
  FileSession(Store& store, const UploadId& id, const WriterOptions& options,
              const char* operation);

 private:
  Task<UploadState> hold(TimePoint deadline) override;
  Task<void> write_piece(std::uint64_t offset, std::span<const std::byte> bytes,
                         bool alone) override;
  Task<OffsetMove> commit_to(std::uint64_t from, std::uint64_t to) override;
  Task<void> confirm() override;
  void let_go() noexcept override { held_.release(); }

  Task<void> write_direct(std::uint64_t offset, std::span<const std::byte> bytes, bool stable);

  Store& store_;
  const Durability durability_;
  HeldUpload held_;
};

}  // namespace tidemark::detail
