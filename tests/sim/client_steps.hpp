#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <system_error>
#include <utility>
#include <vector>

#include <tidemark/engine/stop.hpp>

#include "client.hpp"

namespace tidemark::sim {

/// One client of a storage: does what chance has it do, and checks each answer.
class Client {
 public:
  Client(Life& life, Service service)
      : life_(life), process_(service.process), storage_(service.storage), urls_(service.urls) {}

  Task<void> step();

 private:
  /// What was known of an upload before an operation.
  struct Facts {
    explicit Facts(const Upload& upload);

    Upload::Presence presence;
    std::uint64_t durable;
    std::optional<std::uint64_t> length;
    bool complete;
    std::size_t expiry;
    std::size_t metadata;
  };
  /// What a writer does.
  struct Writing;

  Random& chance() { return life_.machine.chance(); }
  bool is_dead() const { return process_.is_dead(); }
  /// One that may be there; null when there is none.
  Upload* pick();
  Upload* pick_complete();
  Upload& use(Upload& upload);

  Task<void> create();
  /// Makes an upload that somebody else makes, or has made.
  Task<void> create_again();
  Task<void> make(Upload& upload, std::optional<SystemTime> expires_at, Metadata metadata,
                  std::size_t place);
  void note_made(Upload& upload, std::size_t place);
  void note_refused(Upload& upload, std::size_t place);
  Task<void> append();
  Task<void> write();
  Task<void> write_chunks();
  Task<void> commit_many();
  Task<void> look_around();
  Task<void> look();
  Task<void> list();
  Task<void> list_expired();
  Task<void> read();
  Task<void> read_beginning();
  Task<void> check_cleaned(const Upload& upload, SystemTime now);
  Task<void> follow();
  Task<void> await_offset();
  Task<void> count();
  Task<void> set_metadata();
  Task<void> set_expiry();
  Task<void> set_expiry_of(Upload& upload);
  Task<void> extend_expired();
  Task<void> clean_expired();
  Task<void> remove();
  Task<void> concatenate();
  Task<void> release();
  Task<void> set_length();
  Task<void> clean();
  Task<void> back_up();
  Task<void> use_urls();

  /// What an answer says of an upload, unless the power is gone.
  void note(Upload& upload, const Piece& piece, std::uint64_t durable_before,
            const AppendResult& result, Durability durability);
  /// What was written before somebody ended the append is kept.
  void check_kept(const Upload& upload, const Piece& piece, const AppendResult& result);
  /// Whether another may have had `upload` for so long that this step no longer waited.
  bool may_be_held(const Upload& upload, const std::error_code& code) const;
  /// Whether an operation on `upload` may have failed so. Throws Violation when not.
  void allow(Upload* upload, const std::system_error& error);
  Task<void> choose();
  Task<bool> write_piece(Writing& writing);
  WriterOptions some_options(const Upload& upload, Checksum* checksum);
  void check_writer(const Writing& writing, const AppendResult& result, std::uint64_t before);
  /// What is told of an upload is what it was, or has become meanwhile.
  static void check_facts(const Upload& upload, const Facts& before, const tidemark::Upload& found);
  Task<void> append_over(Upload& upload, std::vector<Piece>& chunks);
  Task<void> write_chunks_to(Upload& upload);
  Task<void> leave_tail(Upload& upload);
  Task<void> write_halves(Upload& upload, UploadWriter& writer, Piece piece);
  Task<void> commit_one(Upload& upload, UploadWriter& writer, Piece piece);
  template <class T>
  Task<T> perhaps_stopped(Task<T> task);

  std::uint64_t created_ = 0;  // As was answered.
  std::uint64_t bytes_ = 0;
  StorageStats stats_;  // As seen last, since when these were counted.

  Life& life_;
  Process& process_;
  SQLiteStorage& storage_;
  FileURLStorage& urls_;
  TimePoint began_;           // The present step.
  bool was_limited_ = false;  // In that, the time of an operation.
  Upload::Presence presence_before_ =
      Upload::Presence::tried;  // Of the upload that was picked last.
  std::size_t expiry_before_ = 0;
  std::vector<Upload*> used_;  // By the present step.
};

template <class T>
Task<T> Client::perhaps_stopped(Task<T> task) {
  if (!chance().once_in(8)) return task;
  was_limited_ = true;
  return with_timeout(std::move(task), std::chrono::microseconds(chance().below(5000)));
}

}  // namespace tidemark::sim
