#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <tidemark/engine/async_mutex.hpp>
#include <tidemark/io/directory.hpp>
#include <tidemark/storage/sqlite_storage.hpp>

namespace tus {

/// The final uploads of the concatenation extension: joined when their parts are complete. Until
/// then what was asked of one is a note in a file of its own, called by its id
/// (concatenation-unfinished), and whoever asks for the upload joins it.
///
/// A part that is not there, or parts that are too long together, are an HttpError; else it throws
/// StorageError and std::system_error. Thread safety: the tasks run on the storage's executor,
/// whoever awaits them.
class FinalUploads {
 public:
  struct Options {
    std::uint64_t max_size = tidemark::Storage::k_max_length;  // Of what is joined.
    std::optional<std::chrono::seconds> expire_after = {};     // Until it is joined.
  };

  /// Both outlive it: the storage, and its engine.
  static tidemark::Task<std::unique_ptr<FinalUploads>> open(tidemark::SQLiteStorage& storage,
                                                            std::filesystem::path folder,
                                                            Options options);

  tidemark::Executor& executor() const { return folder_.executor(); }

  /// `metadata` as the header says it. Returns when the upload, or its note, is stable.
  tidemark::Task<void> create(tidemark::UploadId id, std::vector<tidemark::UploadId> parts,
                              std::string metadata);
  /// The upload, joined now if it can be, else what is known of it. None: there is no such upload.
  tidemark::Task<std::optional<tidemark::Upload>> find(tidemark::UploadId id);
  /// Forgets an upload that is still to be joined. False when it is none of these.
  tidemark::Task<bool> remove(tidemark::UploadId id);
  /// Forgets those that have expired; gives how many.
  tidemark::Task<std::size_t> remove_expired();
  /// Forgets those that can never be joined, because a part is gone; gives how many.
  tidemark::Task<std::size_t> remove_hopeless();

 private:
  struct Note {
    std::vector<tidemark::UploadId> parts;
    std::string metadata;
    std::optional<tidemark::SystemTime> expires_at;
  };
  struct Parts {
    bool all_complete = true;
    std::optional<std::uint64_t> length = 0;  // None while a part's is not known.
  };

  FinalUploads(tidemark::SQLiteStorage& storage, tidemark::Directory folder, Options options)
      : storage_(storage), folder_(std::move(folder)), options_(options) {}

  tidemark::Task<Parts> look_at(std::vector<tidemark::UploadId> parts);
  tidemark::Task<void> add_note(tidemark::UploadId id, std::string text);
  tidemark::Task<std::optional<Note>> find_note(tidemark::UploadId id);
  tidemark::Task<bool> is_hopeless(tidemark::UploadId id);
  tidemark::SystemTime now() const { return executor().environment().system_now(); }
  std::optional<tidemark::SystemTime> expiry_of(const tidemark::FileStatus& note) const;

  tidemark::SQLiteStorage& storage_;
  tidemark::Directory folder_;
  const Options options_;
  // Held while a note is written, and from the look at one until it is removed for what it says.
  tidemark::AsyncMutex notes_mutex_;
  // Held from the look at a note until it is joined: one that a client removed is joined no more.
  // One join at a time, because each holds a descriptor for each part.
  tidemark::AsyncMutex join_mutex_;
};

}  // namespace tus
