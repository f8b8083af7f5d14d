#include "foreign.hpp"

#include <chrono>
#include <fcntl.h>
#include <memory>
#include <optional>
#include <string>
#include <sys/file.h>
#include <vector>

#include <sqlite3.h>

#include <tidemark/engine/sleep_for.hpp>

#include "sim_vfs.hpp"

namespace tidemark::sim {
namespace {

using Presence = Upload::Presence;

constexpr int k_lock_attempts = 50;

struct Row {
  std::int64_t length = 0;
  std::int64_t offset = 0;
};

class ForeignProgram {
 public:
  ForeignProgram(Life& life, Process& process) : life_(life), process_(process) {}

  Task<void> step();

 private:
  struct Close {
    void operator()(sqlite3* database) const { sqlite3_close(database); }
  };

  Random& chance() { return life_.machine.chance(); }
  Task<void> pause();
  /// A result or -errno.
  std::int64_t call(Operation::Kind kind, int fd, const char* path, std::uint32_t flags);
  std::int64_t open(const std::string& id, std::uint32_t flags);
  Task<bool> lock(int fd);
  bool write(int fd, std::uint64_t offset, const std::string& bytes);
  /// False when it was not done, or may not have been.
  bool execute(const std::string& sql);
  std::optional<Row> find(const std::string& id);

  Task<void> create(Upload& upload);
  Task<void> change(Upload& upload);
  Task<void> append(Upload& upload, int fd);
  Task<void> remove(Upload& upload);

  Life& life_;
  Process& process_;
};

Task<void> ForeignProgram::pause() {
  co_await sleep_for(std::chrono::microseconds(chance().below(3000)));
}

std::int64_t ForeignProgram::call(Operation::Kind kind, int fd, const char* path,
                                  std::uint32_t flags) {
  Operation operation;
  operation.kind = kind;
  operation.fd = fd;
  operation.path = path;
  operation.flags = flags;
  operation.how.flags = flags;
  return life_.machine.perform(operation, process_);
}

std::int64_t ForeignProgram::open(const std::string& id, std::uint32_t flags) {
  const std::string path = "/sim/uploads/" + id;
  return call(Operation::Kind::open, -1, path.c_str(), flags);
}

Task<bool> ForeignProgram::lock(int fd) {
  for (int i = 0; i < k_lock_attempts; ++i) {
    if (call(Operation::Kind::lock, fd, "", LOCK_EX | LOCK_NB) == 0) co_return true;
    co_await pause();
  }
  co_return false;
}

bool ForeignProgram::write(int fd, std::uint64_t offset, const std::string& bytes) {
  Operation operation;
  operation.kind = Operation::Kind::write;
  operation.fd = fd;
  operation.offset = offset;
  operation.const_buffer = bytes.data();
  operation.length = bytes.size();
  const std::int64_t written = life_.machine.perform(operation, process_);
  return written == static_cast<std::int64_t>(bytes.size());
}

bool ForeignProgram::execute(const std::string& sql) {
  sqlite3* raw = nullptr;
  const int opened =
      sqlite3_open_v2("/sim/uploads.db", &raw, SQLITE_OPEN_READWRITE, SimVfs::k_name);
  const std::unique_ptr<sqlite3, Close> database(raw);
  return opened == SQLITE_OK &&
         sqlite3_exec(raw, sql.c_str(), nullptr, nullptr, nullptr) == SQLITE_OK &&
         sqlite3_changes(raw) == 1;
}

std::optional<Row> ForeignProgram::find(const std::string& id) {
  sqlite3* raw = nullptr;
  const int opened =
      sqlite3_open_v2("/sim/uploads.db", &raw, SQLITE_OPEN_READWRITE, SimVfs::k_name);
  const std::unique_ptr<sqlite3, Close> database(raw);
  if (opened != SQLITE_OK) return std::nullopt;
  std::optional<Row> row;
  const auto keep = [](void* to, int, char** values, char**) {
    *static_cast<std::optional<Row>*>(to) = Row{std::stoll(values[0]), std::stoll(values[1])};
    return 0;
  };
  const std::string sql =
      "SELECT upload_length, \"offset\" FROM uploads WHERE upload_id = '" + id + "'";
  sqlite3_exec(raw, sql.c_str(), keep, &row, nullptr);
  return row;
}

Task<void> ForeignProgram::create(Upload& upload) {
  const std::int64_t length =
      chance().once_in(3) ? -1 : static_cast<std::int64_t>(chance().between(1, 30'000));
  if (length >= 0) upload.length = static_cast<std::uint64_t>(length);
  const bool inserted =
      execute("INSERT INTO uploads (upload_id, upload_length, metadata) VALUES ('" + upload.id +
              "', " + std::to_string(length) + ", '{}')");
  upload.is_in_doubt = !inserted;
  if (!inserted) co_return;
  co_await pause();
  const std::int64_t fd = open(upload.id, O_RDWR | O_CREAT);
  if (fd >= 0) process_.close_descriptor(static_cast<int>(fd));
}

Task<void> ForeignProgram::append(Upload& upload, int fd) {
  const std::optional<Row> row = find(upload.id);
  if (!row || (row->length >= 0 && row->offset >= row->length)) co_return;
  const auto from = static_cast<std::uint64_t>(row->offset);
  std::uint64_t size = chance().between(1, 9000);
  if (row->length >= 0) size = std::min(size, static_cast<std::uint64_t>(row->length) - from);
  const Piece piece{from, from + size, life_.model.new_seed()};
  upload.tried.push_back(piece);
  // Also when it fails on the way: bytes of a COMMIT of ours that failed may have been there, and
  // it settles no log.
  upload.foreign_offset = std::max(upload.foreign_offset, piece.to);
  if (!write(fd, from, piece.bytes())) co_return;
  co_await pause();
  const std::string to = std::to_string(piece.to);
  const bool committed =
      execute("UPDATE uploads SET \"offset\" = " + to + ", completed = (upload_length >= 0 AND " +
              to + " >= upload_length) WHERE upload_id = '" + upload.id + "' AND \"offset\" = " +
              std::to_string(from) + " AND (upload_length < 0 OR upload_length >= " + to + ")");
  if (committed && !process_.is_dead()) upload.believed = piece.to;
}

Task<void> ForeignProgram::remove(Upload& upload) {
  if (upload.is_contested()) co_return;
  upload.presence = Presence::maybe_gone;
  upload.may_be_deleted = true;
  const bool erased = execute("DELETE FROM uploads WHERE upload_id = '" + upload.id + "'");
  if (!erased || process_.is_dead()) co_return;
  const std::string path = "/sim/uploads/" + upload.id;
  call(Operation::Kind::unlink, -1, path.c_str(), 0);
  if (!process_.is_dead()) upload.note_deleted();
}

Task<void> ForeignProgram::change(Upload& upload) {
  // As the package does, which then opens the file of that row: not a leftover of an earlier one.
  if (!find(upload.id)) co_return;
  const std::int64_t opened = open(upload.id, O_RDWR);
  if (opened < 0) co_return;
  const int fd = static_cast<int>(opened);
  const bool locked = co_await lock(fd);
  if (locked) {
    co_await pause();
    Task<void> next = chance().once_in(8) ? remove(upload) : append(upload, fd);
    co_await std::move(next);
    co_await pause();
  }
  process_.close_descriptor(fd);
}

Task<void> ForeignProgram::step() {
  std::vector<Upload*> all = life_.model.all();
  std::erase_if(all, [](const Upload* upload) {
    return upload->presence == Presence::gone || upload->is_private;
  });
  if (all.empty() || chance().once_in(6)) {
    Upload& upload = life_.model.add(chance());
    ++upload.users;
    upload.is_foreign = true;
    ++upload.makers;
    co_await create(upload);
    --upload.makers;
    --upload.users;
    co_return;
  }
  Upload& upload = *all[chance().below(all.size())];
  ++upload.users;
  co_await change(upload);
  --upload.users;
}

}  // namespace

Task<void> run_foreign(Executor&, Life& life, Process& process, unsigned count) {
  ForeignProgram program(life, process);
  while (count-- > 0 && !process.is_dead() && !life.violation) {
    co_await program.step();
    co_await sleep_for(std::chrono::microseconds(life.machine.chance().below(10'000)));
  }
}

}  // namespace tidemark::sim
