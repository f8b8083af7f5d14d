// misuse WHAT: does something that the engine's contracts forbid. Must abort with a message.
#include <coroutine>
#include <cstdio>
#include <latch>
#include <optional>
#include <string_view>
#include <thread>

#include <tidemark/engine/async_mutex.hpp>
#include <tidemark/engine/scope.hpp>
#include <tidemark/engine/sleep_for.hpp>
#include <tidemark/engine/sync_wait.hpp>

#include "../engine/foreign.hpp"

namespace {

using namespace tidemark;
using namespace std::chrono_literals;

Task<void> wait_long(Executor&) {
  co_await sleep_for(1h);
}

Task<void> wait_unbound() {
  co_await schedule();
}

/// Awaits by hand, so that the task is still running when it is destroyed.
Task<void> destroy_running(Executor& executor) {
  Task<void> task = wait_long(executor);
  WorkItem never;
  detail::TaskAccess::promise(task).attach(never, executor, nullptr);
  executor.post_here(detail::TaskAccess::promise(task));
  co_await schedule();
}

Task<void> await_twice(Executor& executor) {
  Task<void> task = wait_unbound();
  co_await std::move(task);
  co_await std::move(task);
  static_cast<void>(executor);
}

Task<void> close_own(Executor&, Engine& engine) {
  engine.close(0s);
  co_return;
}

Task<void> wait_inside(Executor& executor) {
  sync_wait(executor, wait_unbound());
  co_return;
}

Task<void> end_locked(Executor&) {
  std::optional<AsyncMutex> mutex;
  mutex.emplace();
  const AsyncMutex::Guard guard = co_await mutex->lock();
  mutex.reset();
}

Task<void> end_unjoined(Executor& executor) {
  Scope scope(executor);
  scope.spawn(wait_long(executor));
  co_await schedule();
}

test::Foreign await_unbound() {
  co_await wait_unbound();
}

/// Continues whoever awaits it on a thread of its own.
struct ElsewhereAwaiter {
  std::thread thread;
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> awaiter) {
    thread = std::thread([awaiter] { awaiter.resume(); });
  }
  void await_resume() const noexcept {}
};

Task<void> resume_elsewhere(Executor&) {
  ElsewhereAwaiter elsewhere;
  co_await elsewhere;
  co_await wait_unbound();
}

void run(std::string_view what) {
  Engine engine;
  Executor& executor = engine.executor();
  if (what == "destroy_running") sync_wait(engine, destroy_running(executor));
  if (what == "await_twice") sync_wait(engine, await_twice(executor));
  if (what == "close_own") sync_wait(engine, close_own(executor, engine));
  if (what == "wait_inside") sync_wait(engine, wait_inside(executor));
  if (what == "end_locked") sync_wait(engine, end_locked(executor));
  if (what == "end_unjoined") sync_wait(engine, end_unjoined(executor));
  if (what == "resume_elsewhere") sync_wait(engine, resume_elsewhere(executor));
  if (what == "foreign_awaits_unbound") await_unbound().wait();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 2) run(argv[1]);
  std::puts("nothing aborted");
}
