#include "server.hpp"

#include <tidemark/engine/assert.hpp>

#include "sim_vfs.hpp"

namespace tidemark::sim {
namespace {

Task<void> nothing(Executor&) {
  co_return;
}

}  // namespace

Program::Program(Machine& machine, bool is_foreign)
    : machine_(machine), process_(machine, is_foreign) {
  EngineOptions options;
  options.environment = &process_;
  engine_ = std::make_unique<Engine>(options);
}

Program::~Program() {
  run("the end of the engine", nothing(executor()));
}

Server::Server(Machine& machine) : Program(machine), machine_(machine) {}

Server::~Server() {
  if (storage_ == nullptr) return;
  run("close", storage_->close(std::chrono::seconds(machine_.chance().below(10))));
  TIDEMARK_ASSERT(storage_->buffers().bytes_in_use() == 0, "buffers go back before the end");
  // What a close that failed has left open is closed now.
  machine_.run_as(process(), [&] { storage_.reset(); });
}

bool Server::open() {
  StorageOptions options;
  options.db_path = "/sim/uploads.db";
  options.upload_dir = "/sim/uploads";
  options.sqlite_vfs = SimVfs::k_name;
  auto opened = run("open", SQLiteStorage::open(engine(), std::move(options)));
  try {
    storage_ = detail::TaskAccess::promise(*opened).take();
    urls_ = std::make_unique<FileURLStorage>(engine(), "/sim/urls.json");
  } catch (const std::exception& error) {
    machine_.log(error.what());
  }
  return storage_ != nullptr;
}

}  // namespace tidemark::sim
