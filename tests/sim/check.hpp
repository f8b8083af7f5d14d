#pragma once

#include "client.hpp"

namespace tidemark::sim {

/// While no client runs: what is there is what the model knows, and nothing less. `is_start`:
/// nobody has written since the power came, so that the model forgets what did not come to be.
Task<void> check_all(Executor& executor, Life& life, Service service, bool is_start);

/// After clients that met no error, and time for what they left to end: nobody holds an upload.
Task<void> check_free(Executor& executor, Life& life, Service service);

}  // namespace tidemark::sim
