#include "fault_cases.hpp"

#include <algorithm>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <tidemark/engine/sleep_for.hpp>
#include <tidemark/engine/when_all.hpp>

#include "client_support.hpp"

namespace tidemark::sim {
namespace {

constexpr std::uint64_t k_begin = 5000;  // Where the uploads stand at the start.
constexpr std::uint64_t k_length = 20'000;

constexpr const char* k_orphan_file = "/sim/uploads/orphan";
const Piece k_piece{0, k_length, 1};

Task<void> append(Storage& storage, const char* id, std::uint64_t from, std::uint64_t to,
                  Durability durability = Durability::full) {
  const std::string bytes = k_piece.bytes(from, to);
  AppendOptions options;
  options.durability = durability;
  const AppendResult result = co_await storage.append(id, from, as_bytes(bytes), options);
  if (result.status != AppendStatus::committed || result.offset != to) {
    throw Violation("an append neither failed nor did all of it");
  }
}

Task<void> create(Storage& storage, const char* id, std::optional<std::uint64_t> length) {
  Metadata metadata;
  co_await storage.create_upload(id, length, std::move(metadata));
}

Task<void> append_three(Executor&, Service service) {
  std::vector<Task<void>> tasks;
  tasks.push_back(append(service.storage, "open", k_begin, 9000));
  tasks.push_back(append(service.storage, "known", 0, 9000));
  tasks.push_back(append(service.storage, "other", 0, 9000));
  co_await when_all(std::move(tasks));
}

/// Goes on from where the upload stands.
Task<void> finish(Service service, const char* id, std::uint64_t to,
                  Durability durability = Durability::full) {
  const auto upload = co_await service.storage.get_upload(id);
  if (upload->offset < to) co_await append(service.storage, id, upload->offset, to, durability);
}

Task<void> finish_three(Executor&, Service service) {
  for (const char* const id : {"open", "known", "other"}) co_await finish(service, id, 9000);
}

Task<void> write_some(Executor&, Service service) {
  const std::unique_ptr<UploadWriter> writer = co_await service.storage.open_writer("open");
  for (std::uint64_t from = writer->offset(); from < 11'000; from = writer->offset()) {
    const std::string bytes = k_piece.bytes(from, std::min<std::uint64_t>(from + 3000, 11'000));
    co_await writer->write(as_bytes(bytes));
    co_await writer->commit();
  }
  const AppendResult result = co_await writer->close();
  if (result.offset != 11'000) throw Violation("a writer neither failed nor wrote all");
}

/// Past the page cache: the blocks of "known" were set aside.
Task<void> write_buffers(Executor&, Service service) {
  const std::unique_ptr<UploadWriter> writer = co_await service.storage.open_writer("known");
  for (std::uint64_t from = writer->offset(); from < 16384; from = writer->offset()) {
    const std::string bytes = k_piece.bytes(from, std::min<std::uint64_t>(from + 8192, 16384));
    Buffer buffer = co_await service.storage.buffers().acquire(bytes.size());
    std::ranges::copy(as_bytes(bytes), buffer.data());
    const bool is_taken = co_await writer->write(std::move(buffer));
    if (!is_taken) break;
  }
  const AppendResult result = co_await writer->close();
  if (result.offset != 16384) throw Violation("a writer neither failed nor wrote all");
}

Task<void> take_over(Executor&, Service service) {
  const std::unique_ptr<UploadWriter> first = co_await service.storage.open_writer("known");
  const std::string begin = k_piece.bytes(first->offset(), 3000);
  co_await first->write(as_bytes(begin));
  const WriterOptions options{.take_over = true};
  const std::unique_ptr<UploadWriter> second =
      co_await service.storage.open_writer("known", options);
  const AppendResult ended = co_await first->close();
  const bool is_right = ended.status == AppendStatus::taken_over && ended.offset == 3000;
  if (!is_right) throw Violation("a writer that was taken over neither failed nor committed");
  const std::string rest = k_piece.bytes(second->offset(), 9000);
  co_await second->write(as_bytes(rest));
  const AppendResult result = co_await second->close();
  if (result.offset != 9000) throw Violation("a writer neither failed nor wrote all");
}

/// Compares what it is given with what was sent.
class Comparison : public Checksum {
 public:
  explicit Comparison(std::string expected) : expected_(std::move(expected)) {}
  void update(std::span<const std::byte> bytes) override {
    seen_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }
  bool matches() override { return seen_ == expected_; }

 private:
  const std::string expected_;
  std::string seen_;
};

Task<void> append_checked(Executor&, Service service) {
  const std::string bytes = k_piece.bytes(k_begin, 9000);
  for (const bool is_right : {false, true}) {
    Comparison checksum(is_right ? bytes : "else");
    const AppendOptions options{.checksum = &checksum};
    const AppendResult result =
        co_await service.storage.append("open", k_begin, as_bytes(bytes), options);
    const AppendResult expected{
        is_right ? AppendStatus::committed : AppendStatus::checksum_mismatch,
        is_right ? 9000 : k_begin};
    if (result != expected) throw Violation("an append with a checksum neither failed nor kept it");
  }
}

Task<void> write_chunks(Executor&, Service service) {
  const std::string bytes = k_piece.bytes(k_begin, 9000);
  co_await service.storage.write_chunk("open", k_begin, as_bytes(bytes));
  co_await service.storage.sync("open");
  co_await service.storage.update_offset("open", 7000);
  co_await service.storage.update_offset_atomic("open", 7000, 9000);
}

Task<void> write_chunks_again(Executor&, Service service) {
  const auto upload = co_await service.storage.get_upload("open");
  const std::string bytes = k_piece.bytes(upload->offset, 9000);
  co_await service.storage.write_chunk("open", upload->offset, as_bytes(bytes));
  co_await service.storage.sync("open");
  co_await service.storage.update_offset("open", 7000);
  co_await service.storage.update_offset("open", 9000);
}

Task<void> read_some(Executor&, Service service) {
  std::string bytes(1000, '\0');
  const std::unique_ptr<UploadReader> reader = co_await service.storage.open_reader("done");
  const std::size_t size = co_await reader->read_at(500, std::as_writable_bytes(std::span(bytes)));
  if (bytes.substr(0, size) != k_piece.bytes(500, 1500)) throw Violation("read_at reads wrong");
  co_await service.storage.wait_for_offset("done", 100);
  const std::vector<std::byte> all = co_await service.storage.read_file("done", k_length);
  if (all.size() != k_length) throw Violation("read_file reads too little");
}

Task<void> look(Executor&, Service service) {
  const auto open = co_await service.storage.get_upload("open");
  if (!open || open->offset != k_begin) throw Violation("get_upload is wrong");
  const UploadPage page = co_await service.storage.list_uploads(std::nullopt, 2);
  if (page.uploads.size() != 2) throw Violation("list_uploads is wrong");
  const std::vector<UploadId> expired = co_await service.storage.get_expired_uploads();
  if (expired != std::vector<UploadId>{"old"}) throw Violation("get_expired_uploads is wrong");
}

Task<void> join(Executor&, Service service) {
  std::vector<UploadId> parts;
  for (const char* const id : {"part1", "part2"}) parts.emplace_back(id);
  Metadata metadata;
  co_await service.storage.concatenate("joined", std::move(parts), std::move(metadata));
}

/// Under another name: the first may be taken by now.
Task<void> release_again(Executor&, Service service) {
  const auto upload = co_await service.storage.get_upload("part1");
  if (upload) co_await service.storage.release_to("part1", "/sim/out-again");
}

/// What must hold after an operation that did not fail.
Task<void> expect(Service service, const char* id, std::uint64_t offset,
                  std::optional<std::uint64_t> length) {
  const auto upload = co_await service.storage.get_upload(id);
  const bool is_right = upload && upload->offset == offset && upload->length == length;
  if (!is_right) throw Violation(std::string(id) + " is not as it was acknowledged");
}
Task<void> expect_none(Service service, const char* id) {
  const auto upload = co_await service.storage.get_upload(id);
  if (upload) throw Violation(std::string(id) + " is still there");
}
Task<void> expect_url(Service service, const char* fingerprint, std::optional<std::string> url) {
  const auto found = co_await service.urls.get_url(fingerprint);
  if (found != url) throw Violation(std::string("the URL of ") + fingerprint + " is wrong");
}
Task<void> expect_joined(Service service) {
  co_await expect(service, "joined", 2 * k_length, 2 * k_length);
  const std::vector<std::byte> bytes = co_await service.storage.read_file("joined", 3 * k_length);
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  const std::string part = k_piece.bytes(0, k_length);
  if (text != part + part) throw Violation("the parts are joined wrong");
}
Task<void> expect_metadata(Service service) {
  const auto upload = co_await service.storage.get_upload("open");
  const Metadata expected{{"name", "value"}};
  if (!upload || upload->metadata != expected) throw Violation("the metadata is not set");
}
Task<void> expect_no_expiry(Service service) {
  const auto upload = co_await service.storage.get_upload("old");
  if (!upload || upload->expires_at) throw Violation("the expiry is not set");
}
/// What it cannot open it leaves to the next time.
Task<void> expect_cleaned(Service service) {
  co_await service.storage.cleanup_expired_uploads();
  co_await expect_none(service, "old");
}
Task<void> expect_swept(Service service) {
  co_await service.storage.sweep({});
  co_await expect_none(service, "orphan-row");
}
Task<void> nothing(Executor&, Service) {
  co_return;
}

const Case k_cases[] = {
    {.name = "create",
     .act = [](Executor&, Service s) { return create(s.storage, "new", k_length); },
     .effect = [](Executor&, Service s) { return expect(s, "new", 0, k_length); },
     .may_say = Errc::already_exists},
    {.name = "create of no bytes",
     .act = [](Executor&, Service s) { return create(s.storage, "new", 0); },
     .effect = [](Executor&, Service s) { return expect(s, "new", 0, 0); },
     .may_say = Errc::already_exists},
    {.name = "append",
     .act = [](Executor&, Service s) { return append(s.storage, "open", k_begin, 9000); },
     .effect = [](Executor&, Service s) { return expect(s, "open", 9000, std::nullopt); },
     .again = [](Executor&, Service s) { return finish(s, "open", 9000); }},
    {.name = "append of blocks",
     .act = [](Executor&, Service s) { return append(s.storage, "open", k_begin, 16384); },
     .effect = [](Executor&, Service s) { return expect(s, "open", 16384, std::nullopt); },
     .again = [](Executor&, Service s) { return finish(s, "open", 16384); }},
    {.name = "ordered append",
     .act = [](Executor&,
               Service s) { return append(s.storage, "known", 0, 9000, Durability::ordered); },
     .effect = [](Executor&, Service s) { return expect(s, "known", 9000, k_length); },
     .again = [](Executor&, Service s) { return finish(s, "known", 9000, Durability::ordered); }},
    {.name = "appends at once",
     .act = append_three,
     .effect = [](Executor&, Service s) { return expect(s, "other", 9000, k_length); },
     .again = finish_three},
    {.name = "write",
     .act = write_some,
     .effect = [](Executor&, Service s) { return expect(s, "open", 11'000, std::nullopt); }},
    {.name = "write of buffers",
     .act = write_buffers,
     .effect = [](Executor&, Service s) { return expect(s, "known", 16384, k_length); }},
    {.name = "take-over",
     .act = take_over,
     .effect = [](Executor&, Service s) { return expect(s, "known", 9000, k_length); },
     .again = [](Executor&, Service s) { return finish(s, "known", 9000); }},
    {.name = "append with a checksum",
     .act = append_checked,
     .effect = [](Executor&, Service s) { return expect(s, "open", 9000, std::nullopt); },
     .again = [](Executor&, Service s) { return finish(s, "open", 9000); }},
    {.name = "chunks",
     .act = write_chunks,
     .effect = [](Executor&, Service s) { return expect(s, "open", 9000, std::nullopt); },
     .again = write_chunks_again},
    {.name = "read", .act = read_some, .effect = nothing},
    {.name = "look", .act = look, .effect = nothing},
    {.name = "set length",
     .act = [](Executor&, Service s) -> Task<void> {
       return s.storage.set_length("open", k_length);
     },
     .effect = [](Executor&, Service s) { return expect(s, "open", k_begin, k_length); },
     .may_say = Errc::invalid_argument},
    {.name = "set length that completes",
     .act = [](Executor&, Service s) -> Task<void> {
       return s.storage.set_length("open", k_begin);
     },
     .effect = [](Executor&, Service s) { return expect(s, "open", k_begin, k_begin); },
     .may_say = Errc::invalid_argument},
    {.name = "set expiry",
     .act = [](Executor&, Service s) -> Task<void> { return s.storage.set_expiry("old", {}); },
     .effect = [](Executor&, Service s) { return expect_no_expiry(s); }},
    {.name = "set metadata",
     .act = [](Executor&, Service s) -> Task<void> {
       Metadata metadata{{"name", "value"}};
       co_await s.storage.set_metadata("open", std::move(metadata));
     },
     .effect = [](Executor&, Service s) { return expect_metadata(s); }},
    {.name = "delete",
     .act = [](Executor&, Service s) -> Task<void> { return s.storage.delete_upload("old"); },
     .effect = [](Executor&, Service s) { return expect_none(s, "old"); }},
    {.name = "cleanup",
     .act = [](Executor&, Service s) -> Task<void> {
       co_await s.storage.cleanup_expired_uploads();
     },
     .effect = [](Executor&, Service s) { return expect_cleaned(s); }},
    {.name = "sweep",
     .act = [](Executor&, Service s) -> Task<void> { co_await s.storage.sweep({}); },
     .effect = [](Executor&, Service s) { return expect_swept(s); },
     .removes = k_orphan_file},
    {.name = "concatenate",
     .act = join,
     .effect = [](Executor&, Service s) { return expect_joined(s); }},
    {.name = "release",
     .act = [](Executor&, Service s) -> Task<void> {
       return s.storage.release_to("part1", "/sim/out");
     },
     .effect = [](Executor&, Service s) { return expect_none(s, "part1"); },
     .again = release_again,
     .makes = "/sim/out"},
    {.name = "backup",
     .act = [](Executor&, Service s) -> Task<void> { return s.storage.backup("/sim/copy"); },
     .effect = nothing,
     .again = [](Executor&, Service s) -> Task<void> {
       return s.storage.backup("/sim/copy-again");
     },
     .makes = "/sim/copy"},
    {.name = "get URL",
     .act = [](Executor&, Service s) -> Task<void> { co_await s.urls.get_url("kept"); },
     .effect = nothing},
    {.name = "set URL",
     .act = [](Executor&, Service s) -> Task<void> {
       return s.urls.set_url("new", "http://host/new");
     },
     .effect = [](Executor&, Service s) { return expect_url(s, "new", "http://host/new"); }},
    {.name = "remove URL",
     .act = [](Executor&, Service s) -> Task<void> { return s.urls.remove_url("unwanted"); },
     .effect = [](Executor&, Service s) { return expect_url(s, "unwanted", std::nullopt); }},
};

}  // namespace

std::span<const Case> fault_cases() {
  return k_cases;
}

Task<void> set_up(Executor&, Service service) {
  SQLiteStorage& storage = service.storage;
  for (const char* const id : {"done", "part1", "part2"}) {
    co_await create(storage, id, k_length);
    co_await append(storage, id, 0, k_length);
  }
  co_await create(storage, "open", std::nullopt);
  co_await append(storage, "open", 0, k_begin);
  co_await create(storage, "known", k_length);
  co_await create(storage, "other", k_length);
  co_await create(storage, "old", k_length);
  co_await create(storage, "orphan-row", k_length);
  co_await storage.set_expiry("old", service.process.system_now() - std::chrono::hours(1));
  co_await service.urls.set_url("kept", "http://host/kept");
  co_await service.urls.set_url("unwanted", "http://host/unwanted");
}

void leave_orphans(Machine& machine) {
  Disk& disk = machine.disk();
  disk.create(k_orphan_file, false, machine.system_now());
  disk.unlink("/sim/uploads/orphan-row");
  disk.sync_folder("/sim/uploads");
  machine.shift_calendar(std::chrono::hours(2));
}

Task<void> check_kept(Executor&, Service service) {
  struct Kept {
    const char* id;
    std::uint64_t offset;  // It never stood lower.
    bool may_be_gone = false;
  };
  static constexpr Kept k_uploads[] = {
      {"done", k_length}, {"part2", k_length}, {"part1", k_length, true},
      {"open", k_begin},  {"known", 0},        {"other", 0}};
  for (const Kept& each : k_uploads) {
    const std::string id = each.id;
    const auto upload = co_await service.storage.get_upload(each.id);
    if (!upload && each.may_be_gone) continue;
    if (!upload) throw Violation(id + " is gone");
    const std::vector<std::byte> bytes = co_await service.storage.read_file(each.id, k_length);
    const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    if (upload->offset < each.offset) throw Violation(id + " lost");
    if (text != k_piece.bytes(0, upload->offset)) throw Violation(id + " is wrong");
  }
  const std::optional<std::string> url = co_await service.urls.get_url("kept");
  if (url != "http://host/kept") throw Violation("the URL is gone");
}

Task<void> go_on(Executor&, Service service) {
  const auto upload = co_await service.storage.get_upload("open");
  const std::uint64_t offset = upload->offset;
  if (!upload->completed) co_await append(service.storage, "open", offset, offset + 10);
  co_await create(service.storage, "after", k_length);
  co_await append(service.storage, "after", 0, 100);
  co_await service.urls.set_url("after", "http://host/after");
}

Task<std::vector<std::string>> list_all(Executor&, Service service) {
  const UploadPage page = co_await service.storage.list_uploads(std::nullopt, 100);
  std::vector<std::string> all;
  for (const auto& upload : page.uploads) {
    std::string line(upload.id.view());
    line += " at " + std::to_string(upload.offset);
    if (upload.length) line += " of " + std::to_string(*upload.length);
    all.push_back(std::move(line));
  }
  co_return all;
}

Task<void> wait_long(Executor&, Service) {
  co_await sleep_for(std::chrono::minutes(1));
}

}  // namespace tidemark::sim
