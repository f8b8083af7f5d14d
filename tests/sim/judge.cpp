#include "judge.hpp"

#include <memory>
#include <string_view>

#include <sqlite3.h>

#include <tidemark/storage/iso8601.hpp>

namespace tidemark::sim {
namespace {

using Presence = Upload::Presence;

struct CloseDatabase {
  void operator()(sqlite3* database) const { sqlite3_close(database); }
};

/// Null: there is no such file.
const std::string* content_of(const Machine& machine, const std::string& path) {
  const FilePtr file = machine.disk().find(path);
  return file == nullptr ? nullptr : &file->now;
}

const std::string* content_of(const Machine& machine, const Upload& upload) {
  return content_of(machine, "/sim/uploads/" + upload.id);
}

std::string_view view_of(const std::string* content) {
  return content == nullptr ? std::string_view() : *content;
}

/// A power cut took bytes that only another implementation acknowledged.
bool is_spoiled(const Upload& upload, std::uint64_t offset, std::string_view content) {
  if (!upload.has_foreign_tail() || offset <= upload.durable) return false;
  if (content.size() < offset) return true;
  try {
    upload.check_content(content.substr(0, offset));
    return false;
  } catch (const Violation&) {
    return true;
  }
}

void judge_row(const Upload& upload, const Row& row, const std::string* content, bool after_cut) {
  if (row.offset < upload.durable) {
    upload.fail("the offset is " + std::to_string(row.offset) + " of " +
                std::to_string(upload.durable) + " that were acknowledged");
  }
  if (upload.complete && !row.is_complete()) upload.fail("it is no longer complete");
  if (!upload.metadata.may_be(row.metadata, upload.metadata.first())) {
    upload.fail("its metadata were not set: " + row.metadata);
  }
  // What is complete never expires. Other implementations leave an expiry there.
  const bool has_none = row.is_complete() && !row.expires_at;
  if (!has_none && !upload.expiry.may_be(row.expires_at, upload.expiry.first())) {
    upload.fail("its expiry was not set");
  }
  // Another implementation makes the row first; a sweep removes it.
  const bool may_lack_file = upload.is_foreign && upload.presence != Presence::there;
  if (content == nullptr && row.offset == 0 && may_lack_file) return;
  const std::string_view bytes = view_of(content);
  if (after_cut && is_spoiled(upload, row.offset, bytes)) {
    if (bytes.size() < upload.durable) upload.fail("acknowledged bytes are gone");
    return upload.check_content(bytes.substr(0, upload.durable));
  }
  if (content == nullptr) upload.fail("its file is gone");
  if (bytes.size() < row.offset) upload.fail("its file is shorter than its offset");
  const bool has_tail = row.is_complete() && bytes.size() != row.offset;
  // Other implementations leave tails, and have their own idea of complete.
  if (has_tail && upload.foreign_offset < row.offset) upload.fail("a stale tail was left");
  upload.check_content(bytes.substr(0, row.offset));
}

void judge_released(const Upload& upload, const Machine& machine) {
  const std::string* const content = content_of(machine, upload.released_to);
  const bool must_be = upload.is_released || !upload.may_be_deleted;
  if (content == nullptr && !must_be) return;
  if (content == nullptr) upload.fail("it was to be released, and is nowhere");
  const bool whole = content->size() >= upload.durable &&
                     content->size() == upload.length.value_or(content->size());
  if (!whole) upload.fail("the released file has another size");
  upload.check_content(*content);
}

}  // namespace

Rows read_rows(Machine& machine, const char* vfs, const char* path) {
  Rows rows;
  Process reader(machine, true);
  machine.run_as(reader, [&] {
    sqlite3* raw = nullptr;
    const int opened = sqlite3_open_v2(path, &raw, SQLITE_OPEN_READWRITE, vfs);
    const std::unique_ptr<sqlite3, CloseDatabase> database(raw);
    if (opened != SQLITE_OK) return;
    const auto keep = [](void* to, int, char** values, char**) {
      Row row;
      row.offset = std::stoull(values[1]);
      if (values[3] != nullptr) row.expires_at = tidemark::detail::parse_iso8601(values[3]);
      row.metadata = values[4];
      if (values[2][0] != '-') row.length = std::stoull(values[2]);
      static_cast<Rows*>(to)->emplace(values[0], row);
      return 0;
    };
    sqlite3_exec(raw,
                 "SELECT upload_id, \"offset\", upload_length, expires_at, "
                 "metadata || ifnull(metadata_extra, '') FROM uploads",
                 keep, &rows, nullptr);
  });
  return rows;
}

void judge(const Upload& upload, const std::optional<Row>& row, const Machine& machine,
           bool after_cut) {
  if (row) {
    if (upload.presence == Presence::gone) upload.fail("it was deleted, and is back");
    return judge_row(upload, *row, content_of(machine, upload), after_cut);
  }
  const bool expired = !upload.complete &&
                       upload.may_have_expired(machine.latest_system_now(), upload.expiry.first());
  if (upload.presence == Presence::there && !expired) upload.fail("it is gone");
  if (!upload.released_to.empty()) judge_released(upload, machine);
}

void settle(Upload& upload, const std::optional<Row>& row, const Machine& machine) {
  upload.is_in_doubt = false;
  if (!row) {
    upload.presence = Presence::gone;
    return;
  }
  const bool is_released =
      !upload.released_to.empty() && content_of(machine, upload.released_to) != nullptr;
  if (!is_released) upload.released_to.clear();
  const std::string* const content = content_of(machine, upload);
  if (content == nullptr && row->offset == 0) {
    upload.presence = Presence::maybe_gone;
  } else if (is_spoiled(upload, row->offset, view_of(content))) {
    upload.presence = Presence::spoiled;
  } else {
    upload.length = row->length;
    upload.expiry = History(row->expires_at);
    upload.metadata = History(row->metadata);
    upload.settle(content->substr(0, row->offset));
    upload.presence = Presence::there;
  }
}

}  // namespace tidemark::sim
