#pragma once

#include <semaphore>

#include <tidemark/engine/engine.hpp>
#include <tidemark/engine/root.hpp>

namespace tidemark {

/// Runs `task` and blocks the calling thread until it has finished; gives its result or throws its
/// error. For main functions and tests; never from an executor's own thread.
template <class T>
T sync_wait(Executor& executor, Task<T> task) {
  TIDEMARK_ASSERT(Executor::current() == nullptr, "sync_wait would block an executor");
  std::binary_semaphore done(0);
  std::optional<Task<T>> finished;
  detail::Root<T>::start(
      executor, std::move(task),
      [&](Task<T>& result) {
        finished.emplace(std::move(result));
        done.release();
      },
      executor.engine_stop());
  done.acquire();
  return detail::TaskAccess::promise(*finished).take();
}

template <class T>
T sync_wait(Engine& engine, Task<T> task) {
  return sync_wait(engine.executor(), std::move(task));
}

}  // namespace tidemark
