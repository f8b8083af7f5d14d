#pragma once

#include "client.hpp"

namespace tidemark::sim {

/// Another implementation of the same formats, which locks and commits as they say but never syncs
/// a file or a folder: creates, appends and deletes, `count` times.
Task<void> run_foreign(Executor& executor, Life& life, Process& process, unsigned count);

}  // namespace tidemark::sim
