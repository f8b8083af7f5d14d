#!/usr/bin/env python3
"""Breaks the storage on purpose, to prove that the simulator finds it.

    breaks.py list                    one line a break: NAME FILE
    breaks.py write NAME SOURCE OUT   the broken text of its file
"""

import sys

HELD = "storage/detail/held_upload.cpp"
SESSION = "storage/detail/file_session.cpp"
MAKE_STABLE = "  if (durability != Durability::none) co_await make_stable();\n"
MOVE = "  const OffsetMove move = co_await move_offset(from, to);\n"
READ_ROW = "    state_ = co_await store_.find_state(id_);\n"
BEGIN_LOCK = "    try {\n      file_found ="


def unlock(descriptor):
    return f"""  Operation unlock;
  unlock.kind = Operation::Kind::lock;
  unlock.fd = {descriptor};
  unlock.flags = LOCK_UN;
  co_await perform_to_end(unlock);
"""


# Name: the file, and what is replaced in it by what.
BREAKS = {
    "commit_before_sync": (HELD, {MAKE_STABLE: "", MOVE: MOVE + MAKE_STABLE}),
    "no_folder_sync": (
        "storage/detail/create_upload.cpp",
        {"if (store.options.durability != Durability::none) co_await store.names.sync();": ""},
    ),
    "short_write_ignored": (
        "io/file.cpp",
        {"bytes = bytes.subspan(written);": "bytes = bytes.subspan(bytes.size());"},
    ),
    "lock_released_early": (
        HELD,
        {
            "#include <algorithm>\n": "#include <algorithm>\n#include <sys/file.h>\n",
            MOVE: unlock("lock_.file().native_handle()") + MOVE,
        },
    ),
    "failed_sync_retried": (
        "io/file.cpp",
        {
            "  const std::int64_t result = co_await detail::perform_to_end(operation);\n"
            '  detail::check(result, "fdatasync");': "  std::int64_t result = co_await detail::perform_to_end(operation);\n"
            "  if (result < 0) result = co_await detail::perform_to_end(operation);\n"
            '  detail::check(result, "fdatasync");'
        },
    ),
    "file_size_trusted": (
        HELD,
        {
            "  prefix_stable_ = store_": """  if (status_.size > state_->offset && status_.size <= state_->length.value_or(status_.size)) {
    auto work = [&](UploadRows& rows) {
      return rows.advance(id_, state_->offset, status_.size);
    };
    const bool moved = co_await store_.commits->run(work);
    if (moved) state_->offset = status_.size;
  }
  prefix_stable_ = store_"""
        },
    ),
    "request_reused_before_its_cancel": (
        "engine/perform.cpp",
        {
            "self.promise_->executor->driver().cancel(self);": "self.result = -ECANCELED;\n  self.relay_.finish();"
        },
    ),
    "row_read_before_the_lock": (
        HELD,
        {READ_ROW: "", BEGIN_LOCK: READ_ROW + BEGIN_LOCK},
    ),
    "filesystem_sync_not_flushed": (
        "storage/detail/sync_group.cpp",
        {"    co_await round_.front()->file.sync_data();\n": ""},
    ),
    "foreign_prefix_not_synced": (
        HELD,
        {"store_.stable.covers(id_, status_, state_->offset);": "true;"},
    ),
    "block_below_the_offset_rewritten": (
        SESSION,
        {
            "    if (held_.is_unsettled()) co_await held_.settle();\n": """    if (offset > 0) {
      std::byte last[1];
      co_await held_.file().read_at(offset - 1, last);
      co_await held_.file().write_at(offset - 1, last, WriteMode::cached);
    }
"""
        },
    ),
    "ordered_answer_drops_the_lock": (
        SESSION,
        {
            "#include <cstdint>\n": "#include <cstdint>\n#include <string_view>\n#include <sys/file.h>\n",
            "  held_.wrote(offset": '  const bool full = alone || options().checksum != nullptr;\n'
            '  if (!full && std::string_view(operation()) == "append") {\n'
            + unlock("held_.file().native_handle()")
            + "  }\n  held_.wrote(offset",
        },
    ),
    "database_not_synced": (
        "storage/detail/store.cpp",
        {'"PRAGMA synchronous = FULL"': '"PRAGMA synchronous = NORMAL"'},
    ),
    "stale_tail_left": (
        HELD,
        {"if (completes && status_.size > *state_->length) {": "if (completes && to > status_.size) {"},
    ),
    "canceled_write_not_counted": (
        "storage/detail/write_session.cpp",
        {
            "      written_ += piece.size();": """      if (owner.stop_requested() || newer.stop_requested()) {
        canceled = true;
        continue;
      }
      written_ += piece.size();"""
        },
    ),
    "failed_commit_not_settled": (
        HELD,
        {"unsettled_ = may_be_spoken_of && !state_->completed();": "unsettled_ = false;"},
    ),
    "delete_not_settled": (
        "storage/detail/erase_upload.cpp",
        {"if (!erased && has_file && store.options.durability != Durability::none) rows.touch();": ""},
    ),
    "sweep_not_settled": (
        "storage/detail/sweep.cpp",
        {"store.settle(id, Store::Next::remove);": "store.find_state(id);"},
    ),
    "discard_not_settled": (
        "storage/detail/create_upload.cpp",
        {"store.settle(id, Store::Next::remove);": "store.find_state(id);"},
    ),
    "row_deleted_after_its_file": (
        "storage/detail/erase_upload.cpp",
        {
            "  const bool has_file = is_no_file": "  co_await store.folder.unlink(id.c_str());\n"
            "  const bool has_file = is_no_file"
        },
    ),
    "released_name_not_synced": (
        "storage/detail/release_file.cpp",
        {"  co_await folder.sync();\n": ""},
    ),
    "joined_file_not_synced": (
        "storage/detail/join_files.cpp",
        {"  co_await file.sync_data();\n": ""},
    ),
    "chunks_not_synced": (
        "storage/detail/row_operations.cpp",
        {
            "  hold.upload.found_bytes();\n  const OffsetMove": "  const OffsetMove",
            "  store.stable.note_chunk(id);\n": "",
        },
    ),
    "failed_sync_of_chunks_forgotten": (
        "storage/detail/row_operations.cpp",
        {"  store.stable.note_chunk(id);\n": ""},
    ),
    "empty_append_not_synced": (
        "storage/detail/write_session.cpp",
        {"co_return co_await confirm();": "co_return;"},
    ),
    "checksum_not_asked": (
        "storage/detail/write_session.cpp",
        {"options_.checksum == nullptr || options_.checksum->matches()": "true"},
    ),
    "renamed_urls_not_synced": (
        "storage/file_url_storage.cpp",
        {"co_await folder_.sync();": ""},
    ),
}


def broken(name, source):
    file, changes = BREAKS[name]
    with open(f"{source}/{file}", encoding="utf-8") as text:
        result = text.read()
    for old, new in changes.items():
        if result.count(old) != 1:
            sys.exit(f"{name}: not once in {file}: {old}")
        result = result.replace(old, new)
    return result


def main():
    if sys.argv[1:] == ["list"]:
        for name, (file, _) in BREAKS.items():
            print(name, file)
    elif sys.argv[1] == "write":
        with open(sys.argv[4], "w", encoding="utf-8") as out:
            out.write(broken(sys.argv[2], sys.argv[3]))


main()
