#include "client.hpp"

#include <algorithm>
#include <span>
#include <utility>
#include <vector>

#include <tidemark/engine/stop.hpp>

#include "client_support.hpp"

namespace tidemark::sim {
namespace {

using namespace std::chrono_literals;
using Presence = Upload::Presence;

class Client {
 public:
  Client(Life& life, Service service)
      : life_(life), process_(service.process), storage_(service.storage), urls_(service.urls) {}

  Task<void> step();

 private:
  Random& chance() { return life_.machine.chance(); }
  bool is_dead() const { return process_.is_dead(); }
  /// One that may be there; null when there is none.
  Upload* pick();
  Upload* pick_complete();
  Upload& use(Upload& upload);

  Task<void> create();
  Task<void> append();
  Task<void> write();
  Task<void> look();
  Task<void> read();
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
  /// Whether an operation on `upload` may have failed so. Throws Violation when not.
  void allow(Upload* upload, const std::system_error& error);
  Task<void> choose();
  template <class T>
  Task<T> perhaps_stopped(Task<T> task);

  Life& life_;
  Process& process_;
  SQLiteStorage& storage_;
  FileURLStorage& urls_;
  Presence presence_before_ = Presence::tried;  // Of the upload that was picked last.
  std::vector<Upload*> used_;                   // By the present step.
  Upload* failed_ = nullptr;                    // By the step before.
};

Upload* Client::pick() {
  std::vector<Upload*> all = life_.model.all();
  std::erase_if(all, [](const Upload* upload) { return upload->presence == Presence::gone; });
  if (all.empty()) return nullptr;
  // Who meets an error tries again.
  Upload* const failed = std::exchange(failed_, nullptr);
  const bool again = std::ranges::count(all, failed) > 0;
  return &use(again ? *failed : *all[chance().below(all.size())]);
}

Upload& Client::use(Upload& upload) {
  ++upload.users;
  used_.push_back(&upload);
  presence_before_ = upload.presence;
  return upload;
}

Upload* Client::pick_complete() {
  std::vector<Upload*> all = life_.model.all();
  std::erase_if(all, [](const Upload* upload) {
    return upload->presence != Presence::there || !upload->complete;
  });
  return all.empty() ? nullptr : &use(*all[chance().below(all.size())]);
}

template <class T>
Task<T> Client::perhaps_stopped(Task<T> task) {
  if (!chance().once_in(8)) return task;
  return with_timeout(std::move(task), std::chrono::microseconds(chance().below(5000)));
}

void Client::allow(Upload* upload, const std::system_error& error) {
  if (upload != nullptr) trace(life_, *upload, error.what());
  if (is_dead()) return;
  const std::error_code code = error.code();
  if (code == std::errc::timed_out || is_canceled(error)) return;
  const bool failed = code == Errc::io_error || code == Errc::no_space;
  if (failed && life_.machine.had_errors()) {
    failed_ = upload;
    // What an error leaves half done is at its weakest now.
    if (chance().once_in(8))
      life_.machine.cut_power_at_step(life_.machine.steps() + chance().between(1, 12));
    return;
  }
  const bool known = upload != nullptr;
  const bool was_there =
      known && upload->presence == Presence::there && presence_before_ == Presence::there;
  if (known && code == Errc::not_found && !was_there) return;
  if (known && upload->expires_at && *upload->expires_at <= life_.machine.latest_system_now() &&
      (code == Errc::expired || code == Errc::not_found)) {
    return;
  }
  const bool has_length = known && (upload->length || upload->may_have_length);
  if (has_length && code == Errc::already_complete) return;
  if (known && code == Errc::length_exceeded) return;
  throw Violation((known ? upload->id : std::string("?")) + ": failed: " + error.what());
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

Task<void> Client::create() {
  Upload& upload = use(life_.model.add(chance()));
  if (!chance().once_in(4))
    upload.length = chance().once_in(20) ? 0 : some_size(chance()) * chance().between(1, 3);
  if (chance().once_in(5)) {
    upload.expires_at =
        life_.machine.system_now() + std::chrono::milliseconds(chance().below(30'000));
  }
  trace(life_, upload, "create");
  upload.is_being_made = true;
  try {
    Metadata metadata;
    co_await perhaps_stopped(
        storage_.create_upload(upload.id, upload.length, std::move(metadata), upload.expires_at));
    trace(life_, upload, "created");
    if (!is_dead() && upload.presence == Presence::tried) upload.presence = Presence::there;
    if (!is_dead() && upload.length == 0) upload.complete = true;
  } catch (const std::system_error& error) {
    allow(&upload, error);
  }
  upload.is_being_made = false;
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
  std::uint64_t size = some_size(chance());
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

Task<void> Client::write() {
  Upload* const upload = pick();
  if (upload == nullptr) co_return;
  const std::uint64_t before = upload->durable;
  WriterOptions options;
  options.take_over = chance().once_in(2);
  KnownChecksum checksum(chance().once_in(2));
  if (chance().once_in(8)) options.checksum = &checksum;
  const bool may_stay = options.checksum == nullptr || checksum.matches();
  try {
    const std::unique_ptr<UploadWriter> writer =
        co_await perhaps_stopped(storage_.open_writer(upload->id, options));
    const std::uint64_t begin = writer->offset();
    std::vector<Piece> pieces;
    for (std::uint64_t i = chance().between(0, 4); i > 0; --i) {
      const std::uint64_t from = writer->offset();
      const std::uint64_t end = std::min(upload->length.value_or(k_max_length), k_max_length);
      const std::uint64_t size = std::min(some_size(chance()), end - std::min(end, from));
      if (size == 0) break;
      const Piece piece{from, from + size, life_.model.new_seed()};
      pieces.push_back(piece);
      if (may_stay) upload->tried.push_back(piece);
      trace(life_, *upload, "write " + text_of(piece));
      const std::string bytes = piece.bytes();
      if (!co_await perhaps_stopped(writer->write(as_bytes(bytes)))) break;
      if (options.checksum == nullptr && chance().once_in(3)) co_await writer->commit();
    }
    if (chance().once_in(4)) co_return;  // Destroyed: it closes by itself.
    const AppendResult result = co_await writer->close();
    trace(life_, *upload, "writer: " + text_of(result));
    if (is_dead()) co_return;
    if (result.offset < before) upload->fail("a writer's answer is below what was acknowledged");
    if (upload->presence == Presence::gone) co_return;
    upload->believed = result.offset;
    if (result.completed) upload->complete = true;
    if (result.status != AppendStatus::committed) co_return;
    if (!may_stay && !pieces.empty()) upload->fail("a writer committed against its checksum");
    for (const Piece& piece : pieces) {
      if (piece.to <= result.offset) upload->acknowledge(piece);
    }
    if (result.offset != begin && (pieces.empty() || pieces.back().to != result.offset)) {
      upload->fail("a writer's offset is none that it wrote to");
    }
  } catch (const std::system_error& error) {
    allow(upload, error);
  }
}

Task<void> Client::look() {
  Upload* const upload = pick();
  if (upload == nullptr) co_return;
  const Presence presence = upload->presence;
  const std::uint64_t before = upload->durable;
  const bool complete = upload->complete;
  try {
    const auto found = co_await perhaps_stopped(storage_.get_upload(upload->id));
    if (is_dead()) co_return;
    const bool may_be_gone = upload->presence != Presence::there || upload->expires_at;
    if (!found && presence == Presence::there && !may_be_gone) upload->fail("it is gone");
    if (found && presence == Presence::gone) upload->fail("it was deleted and is back");
    if (!found) co_return;
    if (found->offset < before) upload->fail("its offset went back");
    if (complete && !found->completed) upload->fail("it is no longer complete");
  } catch (const std::system_error& error) {
    allow(upload, error);
  }
}

Task<void> Client::read() {
  Upload* const upload = pick();
  if (upload == nullptr) co_return;
  const std::uint64_t from = chance().below(upload->durable + 100);
  const std::uint64_t before = upload->durable;
  std::string bytes(chance().between(1, 10'000), '\0');
  try {
    const std::size_t size = co_await perhaps_stopped(
        storage_.read_at(upload->id, from, std::as_writable_bytes(std::span(bytes))));
    if (is_dead()) co_return;
    if (from + size < std::min<std::uint64_t>(before, from + bytes.size())) {
      upload->fail("fewer bytes than were acknowledged");
    }
    upload->check_content(std::string_view(bytes).substr(0, size), from);
  } catch (const std::system_error& error) {
    if (error.code() == Errc::invalid_argument && from > before) co_return;
    allow(upload, error);
  }
}

Task<void> Client::remove() {
  Upload* const upload = pick();
  if (upload == nullptr) co_return;
  upload->presence = Presence::maybe_gone;
  upload->may_be_deleted = true;
  const bool was_being_made = upload->is_being_made;  // Then it may be deleted before it is made.
  trace(life_, *upload, "delete");
  try {
    co_await perhaps_stopped(storage_.delete_upload(upload->id));
    trace(life_, *upload, "deleted");
    if (!is_dead() && !was_being_made) upload->note_deleted();
  } catch (const std::system_error& error) {
    allow(upload, error);
  }
}

Task<void> Client::concatenate() {
  std::vector<UploadId> parts;
  std::vector<Upload*> sources;
  for (std::uint64_t i = chance().between(1, 3); i > 0; --i) {
    Upload* const part = pick_complete();
    if (part == nullptr) co_return;
    sources.push_back(part);
    parts.emplace_back(part->id);
  }
  Upload& upload = use(life_.model.add(chance()));
  upload.length = 0;
  for (const Upload* const source : sources) {
    std::vector<Piece> pieces = source->known;
    pieces.insert(pieces.end(), source->tried.begin(), source->tried.end());
    for (Piece piece : pieces) {
      piece.from += *upload.length;
      piece.to += *upload.length;
      piece.shift += *upload.length;
      upload.tried.push_back(piece);
    }
    *upload.length += *source->length;
  }
  if (*upload.length > k_max_length) {
    upload.presence = Presence::gone;
    co_return;
  }
  upload.is_being_made = true;
  try {
    Metadata metadata;
    co_await perhaps_stopped(
        storage_.concatenate(upload.id, std::move(parts), std::move(metadata)));
    if (!is_dead()) {
      if (upload.presence == Presence::tried) upload.presence = Presence::there;
      upload.acknowledge_offset(*upload.length);
      upload.complete = true;
    }
  } catch (const std::system_error& error) {
    const bool part_left = std::ranges::any_of(
        sources, [](const Upload* part) { return part->presence != Presence::there; });
    if (error.code() != Errc::not_found || !part_left) allow(&upload, error);
  }
  upload.is_being_made = false;
}

Task<void> Client::release() {
  Upload* const upload = pick_complete();
  if (upload == nullptr) co_return;
  upload->presence = Presence::maybe_gone;
  upload->released_to = "/sim/out-" + upload->id;
  trace(life_, *upload, "release");
  try {
    co_await perhaps_stopped(storage_.release_to(upload->id, upload->released_to));
    if (is_dead()) co_return;
    upload->presence = Presence::gone;
    upload->is_released = true;
  } catch (const std::system_error& error) {
    if (error.code() == Errc::already_exists) co_return;  // An earlier one has come half way.
    allow(upload, error);
  }
}

Task<void> Client::set_length() {
  Upload* const upload = pick();
  if (upload == nullptr || upload->length) co_return;
  const std::uint64_t more = chance().once_in(3) ? 0 : chance().below(3000);
  const std::uint64_t length = upload->believed + more;
  trace(life_, *upload, "set length " + std::to_string(length));
  upload->may_have_length = true;
  try {
    co_await storage_.set_length(upload->id, length);
    if (is_dead()) co_return;
    upload->length = length;
    if (upload->durable >= length) upload->complete = true;
  } catch (const std::system_error& error) {
    if (error.code() == Errc::invalid_argument) co_return;
    allow(upload, error);
  }
}

Task<void> Client::clean() {
  try {
    if (chance().once_in(2)) {
      co_await perhaps_stopped(storage_.cleanup_expired_uploads());
    } else {
      SweepOptions options;
      if (chance().once_in(2)) options.min_age = 0s;
      co_await perhaps_stopped(storage_.sweep(options));
    }
  } catch (const std::system_error& error) {
    allow(nullptr, error);
  }
}

Task<void> Client::back_up() {
  try {
    co_await perhaps_stopped(
        storage_.backup("/sim/backup-" + std::to_string(life_.model.new_seed())));
  } catch (const std::system_error& error) {
    allow(nullptr, error);
  }
}

Task<void> Client::use_urls() {
  const std::string key = "key" + std::to_string(chance().below(6));
  std::set<std::optional<std::string>>& possible = life_.model.urls[key];
  try {
    if (chance().once_in(2)) {
      const std::optional<std::string> url = co_await perhaps_stopped(urls_.get_url(key));
      if (is_dead() || possible.empty() || possible.contains(url)) co_return;
      life_.report(key + ": the URL is none that was kept");
      co_return;
    }
    if (life_.model.busy_keys.contains(key)) co_return;  // Of two at a time nobody knows the last.
    life_.model.busy_keys.insert(key);
    std::optional<std::string> url;
    if (!chance().once_in(4)) url = "http://host/" + std::to_string(life_.model.new_seed());
    if (possible.empty()) possible.insert(std::nullopt);
    possible.insert(url);
    Task<void> change = url ? urls_.set_url(key, *url) : urls_.remove_url(key);
    co_await perhaps_stopped(std::move(change));
    if (!is_dead()) possible = {url};
  } catch (const std::system_error& error) {
    allow(nullptr, error);
  }
  life_.model.busy_keys.erase(key);
}

Task<void> Client::step() {
  co_await choose();
  for (Upload* const upload : used_) --upload->users;
  used_.clear();
}

Task<void> Client::choose() {
  const std::uint64_t what = chance().below(100);
  if (what < 12) return create();
  if (what < 50) return append();
  if (what < 70) return write();
  if (what < 76) return look();
  if (what < 84) return read();
  if (what < 88) return remove();
  if (what < 91) return concatenate();
  if (what < 94) return release();
  if (what < 96) return set_length();
  if (what < 98) return clean();
  if (what < 99) return use_urls();
  return chance().once_in(4) ? back_up() : use_urls();
}

}  // namespace

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
