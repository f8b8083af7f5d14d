#include "client.hpp"

#include <algorithm>
#include <span>
#include <utility>
#include <vector>

#include "client_steps.hpp"
#include "client_support.hpp"

namespace tidemark::sim {

using Presence = Upload::Presence;

Upload* Client::pick() {
  std::vector<Upload*> all = life_.model.all();
  std::erase_if(all, [](const Upload* upload) {
    return upload->presence == Presence::gone || upload->is_private;
  });
  if (all.empty()) return nullptr;
  // Who meets an error tries again, through whichever process is there.
  Upload* const failed = std::exchange(life_.failed, nullptr);
  const bool again = std::ranges::count(all, failed) > 0;
  return &use(again ? *failed : *all[chance().below(all.size())]);
}

Upload& Client::use(Upload& upload) {
  ++upload.users;
  used_.push_back(&upload);
  presence_before_ = upload.presence;
  expiry_before_ = upload.expiry.first();
  return upload;
}

Upload* Client::pick_complete() {
  std::vector<Upload*> all = life_.model.all();
  std::erase_if(all, [](const Upload* upload) {
    return upload->presence != Presence::there || !upload->complete;
  });
  return all.empty() ? nullptr : &use(*all[chance().below(all.size())]);
}

void Client::allow(Upload* upload, const std::system_error& error) {
  if (upload != nullptr) trace(life_, *upload, error.what());
  if (is_dead()) return;
  const std::error_code code = error.code();
  if (is_canceled(error) || (upload != nullptr && may_be_held(*upload, code))) return;
  if (was_limited_ && code == std::make_error_code(std::errc::timed_out)) return;
  const bool failed = code == Errc::io_error || code == Errc::no_space;
  if (failed && life_.machine.had_errors()) return life_.note_failure(upload);
  const bool known = upload != nullptr;
  const bool was_there =
      known && upload->presence == Presence::there && presence_before_ == Presence::there;
  if (known && code == Errc::not_found && !was_there) return;
  const bool expires = code == Errc::expired || code == Errc::not_found;
  if (known && expires &&
      upload->may_have_expired(life_.machine.latest_system_now(), expiry_before_)) {
    return;
  }
  if (known && code == Errc::already_complete && upload->may_be_complete()) return;
  if (known && code == Errc::length_exceeded) return;
  throw Violation((known ? upload->id : std::string("?")) + ": failed: " + error.what());
}

bool Client::may_be_held(const Upload& upload, const std::error_code& code) const {
  if (code != Errc::lock_timeout) return false;
  const TimePoint now = life_.machine.now();
  if (now - began_ < StorageOptions().lock_timeout) return false;
  return upload.users > 1 || now - upload.last_used < k_settling;
}

void Client::note(Upload& upload, const Piece& piece, std::uint64_t durable_before,
                  const AppendResult& result, Durability durability) {
  trace(life_, upload, text_of(piece) + ": " + text_of(result));
  if (is_dead()) return;
  const bool gone = upload.presence == Presence::gone;
  if (gone && result.status == AppendStatus::committed) return;  // It was before the delete.
  if (result.offset < durable_before) {
    upload.fail("an answer is below an offset that was acknowledged");
  }
  if (result.status == AppendStatus::committed) {
    if (result.offset != piece.to) upload.fail("committed, but not up to the end");
    if (durability == Durability::full || result.completed) {
      upload.acknowledge(piece);
    } else {
      upload.believed = result.offset;
    }
  } else {
    upload.believed = result.offset;
  }
  if (result.completed) upload.complete = true;
}

void Client::check_kept(const Upload& upload, const Piece& piece, const AppendResult& result) {
  constexpr std::uint64_t k_telling = 16;
  if (life_.machine.had_errors() || result.offset < piece.from) return;
  if (result.offset + k_telling > piece.to) return;
  const FilePtr file = life_.machine.disk().find("/sim/uploads/" + upload.id);
  if (file == nullptr || file->now.size() < result.offset + k_telling) return;
  const std::string_view rest = std::string_view(file->now).substr(result.offset, k_telling);
  if (piece.matching(rest, result.offset) == k_telling) {
    upload.fail("bytes were written, and not counted");
  }
}

Task<void> Client::append() {
  Upload* const upload = pick();
  if (upload == nullptr) co_return;
  std::uint64_t size = chance().once_in(30) ? 0 : some_size(chance());
  const std::uint64_t from = chance().once_in(20) ? chance().below(5000) : upload->believed;
  if (upload->length && from < *upload->length &&
      (from + size > *upload->length || chance().once_in(4))) {
    size = *upload->length - from;
  }
  if (from + size > k_max_length) co_return;
  const Piece piece{from, from + size, life_.model.new_seed()};
  const std::uint64_t before = upload->durable;
  const bool has_checksum = chance().once_in(8);
  KnownChecksum checksum(chance().once_in(2));
  const bool may_stay = !has_checksum || checksum.matches();
  auto tried = upload->tried.end();
  if (may_stay) tried = upload->tried.insert(tried, piece);
  const std::string bytes = piece.bytes();
  AppendOptions options;
  options.durability = chance().once_in(6) ? Durability::ordered : Durability::full;
  if (has_checksum) options.checksum = &checksum;
  trace(life_, *upload, "append " + text_of(piece));
  try {
    const AppendResult result =
        co_await perhaps_stopped(storage_.append(upload->id, from, as_bytes(bytes), options));
    if (!may_stay && !is_dead() && result.status == AppendStatus::committed) {
      upload->fail("committed against its checksum");
    }
    const bool is_full = has_checksum || options.durability == Durability::full;
    if (result.status == AppendStatus::committed && is_full) bytes_ += size;
    // With a checksum they are committed fully.
    note(*upload, piece, before, result, has_checksum ? Durability::full : *options.durability);
    if (is_dead() || !may_stay || result.status == AppendStatus::committed) co_return;
    if (has_checksum || result.status == AppendStatus::offset_conflict) {
      upload->tried.erase(tried);
    } else {
      check_kept(*upload, piece, result);
    }
  } catch (const std::system_error& error) {
    allow(upload, error);
  }
}

/// Appends where the chunks begin that are not committed; should that fail, writes them again.
Task<void> Client::append_over(Upload& upload, std::vector<Piece>& chunks) {
  if (chunks.empty()) co_return;
  Piece& first = chunks.front();
  const std::uint64_t size = chance().between(1, first.to - first.from);
  const Piece piece{first.from, first.from + size, life_.model.new_seed()};
  upload.tried.push_back(piece);
  upload.tried.push_back({piece.to, first.to, first.seed});  // The chunk goes on behind it.
  trace(life_, upload, "append " + text_of(piece));
  const std::string bytes = piece.bytes();
  AppendResult result;
  try {
    result = co_await storage_.append(upload.id, piece.from, as_bytes(bytes));
  } catch (const std::system_error& error) {
    allow(&upload, error);
    result.status = AppendStatus::canceled;
  }
  if (is_dead()) co_return;
  if (result.status == AppendStatus::committed) {
    upload.acknowledge(piece);
    first.from = piece.to;
    if (first.from == first.to) chunks.erase(chunks.begin());
    co_return;
  }
  const std::string again = first.bytes(piece.from, piece.to);
  co_await storage_.write_chunk(upload.id, piece.from, as_bytes(again));
}

/// As an application does that commits by itself.
Task<void> Client::write_chunks_to(Upload& upload) {
  Metadata metadata;
  co_await storage_.create_upload(upload.id, std::nullopt, std::move(metadata));
  if (!is_dead() && upload.presence == Presence::tried) upload.presence = Presence::there;
  std::vector<Piece> pieces;
  std::uint64_t end = 0;
  for (std::uint64_t i = chance().between(1, 4); i > 0; --i) {
    const Piece piece{end, end + some_size(chance()), life_.model.new_seed()};
    pieces.push_back(piece);
    upload.tried.push_back(piece);
    trace(life_, upload, "chunk " + text_of(piece));
    const std::string bytes = piece.bytes();
    co_await perhaps_stopped(storage_.write_chunk(upload.id, piece.from, as_bytes(bytes)));
    end = piece.to;
    if (chance().once_in(2)) co_await append_over(upload, pieces);
    if (chance().once_in(3)) co_await storage_.sync(upload.id);
    if (chance().once_in(2)) continue;
    if (chance().once_in(2)) {
      co_await storage_.update_offset(upload.id, end);
    } else {
      const bool moved = co_await storage_.update_offset_atomic(upload.id, upload.durable, end);
      if (!moved && !is_dead()) upload.fail("an offset that nobody else moves was not moved");
    }
    if (is_dead()) co_return;
    for (const Piece& written : std::exchange(pieces, {})) upload.acknowledge(written);
  }
}

Task<void> Client::write_chunks() {
  Upload& upload = use(life_.model.add(chance()));
  upload.is_private = true;
  try {
    co_await write_chunks_to(upload);
  } catch (const std::system_error& error) {
    allow(&upload, error);
  }
  upload.is_private = false;
}

Task<void> Client::step() {
  began_ = life_.machine.now();
  was_limited_ = false;
  co_await choose();
  if (process_.is_killed() && !used_.empty()) life_.note_death(used_.front());
  for (Upload* const upload : used_) {
    --upload->users;
    upload->last_used = life_.machine.now();
  }
  used_.clear();
}

Task<void> Client::choose() {
  if (life_.failed != nullptr && chance().once_in(2)) {  // Somebody cleans up.
    return chance().once_in(2) ? remove() : clean();
  }
  if (chance().once_in(8)) return look_around();
  if (life_.contested != nullptr) return create_again();
  const std::uint64_t what = chance().below(100);
  if (what < 12) return create();
  if (what < 48) return append();
  if (what < 68) return write();
  if (what < 74) return look();
  if (what < 82) return read();
  if (what < 86) return remove();
  if (what < 89) return concatenate();
  if (what < 92) return release();
  if (what < 94) return set_length();
  if (what < 95) return clean();
  if (what < 98) return write_chunks();
  if (what < 99) return use_urls();
  if (chance().once_in(4)) return back_up();
  return chance().once_in(4) ? use_urls() : commit_many();
}

Task<void> Client::look_around() {
  switch (chance().below(8)) {
    case 0:
      return set_metadata();
    case 1:
      return chance().once_in(2) ? set_expiry() : extend_expired();
    case 2:
      return list();
    case 3:
      return list_expired();
    case 4:
      return read_beginning();
    case 5:
      return follow();
    case 6:
      return await_offset();
    default:
      return count();
  }
}

Task<void> run_client(Executor&, Life& life, Service service, unsigned count) {
  Client client(life, service);
  try {
    while (count-- > 0 && !service.process.is_dead() && !life.violation) {
      co_await client.step();
    }
  } catch (const Violation&) {
    if (!life.violation) life.violation = std::current_exception();
  }
}

}  // namespace tidemark::sim
