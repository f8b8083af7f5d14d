#pragma once

#include <filesystem>

#include <tidemark/engine/engine.hpp>
#include <tidemark/storage/storage_options.hpp>

#include "server.hpp"

namespace tus {

struct Options {
  std::filesystem::path data = "data";
  tidemark::EngineOptions engine = {};
  tidemark::StorageOptions storage = {};
  FinalUploads::Options finals = {};
  Service::Options service = {};
  ServerOptions server = {};
};

/// Says on standard error what is wrong with the arguments, in one line, and exits with 2; with 0
/// after --help.
Options parse_options(int argc, char** argv);

}  // namespace tus
