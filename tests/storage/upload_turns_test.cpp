#include <memory>
#include <string>
#include <vector>

#include <tidemark/engine/perform.hpp>
#include <tidemark/engine/sleep_for.hpp>
#include <tidemark/engine/stop.hpp>
#include <tidemark/engine/sync_wait.hpp>
#include <tidemark/engine/when_all.hpp>
#include <tidemark/storage/detail/upload_turns.hpp>

#include "catch.hpp"
#include "driver_fixture.hpp"

using namespace tidemark;
using detail::UploadTurns;

namespace {

/// What the tasks of one test share.
struct Trace {
  explicit Trace(Executor& executor) : turns(executor) {}
  Executor& executor() const { return turns.executor(); }

  UploadTurns turns;
  std::string order;  // Of the turns, by their names.
};

/// Waits for the turn, notes it, and gives it on after a few turns of the loop.
Task<bool> use(Trace& trace, UploadId id, char name, bool take_over = false) {
  UploadTurns::Turn turn(trace.turns, id);
  CHECK_FALSE(turn.has_turn());
  if (take_over) {
    co_await turn.take_over();
  } else {
    co_await turn.wait();
  }
  CHECK(turn.has_turn());
  const bool ended = turn.is_taken_over();
  if (!ended) trace.order += name;
  for (int i = 0; i < 3; ++i) co_await schedule();
  co_return ended;
}

void run(Task<void> (*test)(Trace&)) {
  test::EngineFixture fixture;
  Trace trace(fixture.executor);
  sync_wait(fixture.executor, test(trace));
}

Task<void> first_come_first_served(Trace& trace) {
  std::vector<Task<bool>> tasks;
  for (const char name : {'a', 'b', 'c', 'd'}) tasks.push_back(use(trace, "x", name));
  const std::vector<bool> ended = co_await when_all(std::move(tasks));
  CHECK(ended == std::vector<bool>(4, false));
  CHECK(trace.order == "abcd");
  CHECK_FALSE(trace.turns.is_taken("x"));
}

Task<void> each_upload_for_itself(Trace& trace) {
  UploadTurns::Turn x(trace.turns, "x");
  co_await x.wait();
  UploadTurns::Turn y(trace.turns, "y");
  co_await y.wait();
  CHECK(trace.turns.is_taken("x"));
  x.end();
  CHECK_FALSE(trace.turns.is_taken("x"));
  CHECK(trace.turns.is_taken("y"));
  x.end();
}

Task<void> only_when_nobody_waits(Trace& trace) {
  UploadTurns::Turn first(trace.turns, "x");
  CHECK(first.try_take());
  CHECK(first.has_turn());
  UploadTurns::Turn second(trace.turns, "x");
  CHECK_FALSE(second.try_take());
  first.end();
  CHECK(second.try_take());
  co_return;
}

Task<void> take_last(Trace& trace, UploadTurns::Turn& held, int& asked) {
  auto ended =
      co_await when_all(use(trace, "x", 'b'), use(trace, "x", 'c', true), use(trace, "x", 'd'),
                        use(trace, "x", 'e', true), use(trace, "x", 'f'));
  CHECK(asked == 2);
  CHECK_FALSE(held.has_turn());
  CHECK(std::get<0>(ended));
  CHECK(std::get<1>(ended));
  CHECK(std::get<2>(ended));
  CHECK_FALSE(std::get<3>(ended));
  CHECK_FALSE(std::get<4>(ended));
}

/// Lets the others queue up behind the turn, then ends it.
Task<void> end_soon(UploadTurns::Turn& turn, bool& was_taken_over) {
  for (int i = 0; i < 10; ++i) co_await schedule();
  was_taken_over = turn.is_taken_over();
  turn.end();
}

Task<void> newcomers_take_over(Trace& trace) {
  int asked = 0;
  bool was_taken_over = false;
  UploadTurns::Turn held(trace.turns, "x", [&] { ++asked; });
  co_await held.wait();
  CHECK_FALSE(held.is_taken_over());
  co_await when_all(take_last(trace, held, asked), end_soon(held, was_taken_over));
  CHECK(was_taken_over);
  CHECK(trace.order == "ef");
}

/// Takes over as one that expects `offset`; gives whether it was itself asked to end.
Task<bool> take_over_at(Trace& trace, std::uint64_t offset) {
  const UploadTurns::Standing standing{offset};
  UploadTurns::Turn turn(trace.turns, "x", {}, &standing);
  co_await turn.take_over(offset);
  co_return turn.is_taken_over();
}

Task<void> late_newcomers_end_nobody(Trace& trace) {
  int asked = 0;
  bool was_taken_over = false;
  UploadTurns::Standing standing{20, false};
  UploadTurns::Turn held(
      trace.turns, "x", [&] { ++asked; }, &standing);
  co_await held.wait();
  // Only the first reaches the holder; of those that wait, the fourth passes the third alone.
  const auto ended =
      co_await when_all(take_over_at(trace, 30), take_over_at(trace, 19), take_over_at(trace, 10),
                        take_over_at(trace, 18), end_soon(held, was_taken_over));
  CHECK(asked == 1);  // By the first.
  CHECK_FALSE(std::get<0>(ended));
  CHECK_FALSE(std::get<1>(ended));
  CHECK(std::get<2>(ended));
  CHECK_FALSE(std::get<3>(ended));
}

Task<bool> was_stopped(Task<bool> task) {
  try {
    co_await std::move(task);
  } catch (const std::system_error& error) {
    co_return is_canceled(error);
  }
  co_return false;
}

Task<void> stop_in(std::stop_source source) {
  for (int i = 0; i < 10; ++i) co_await schedule();
  source.request_stop();
}

Task<void> waiting_is_stopped(Trace& trace) {
  std::stop_source source;
  {
    UploadTurns::Turn held(trace.turns, "x");
    co_await held.wait();
    auto stopped = co_await when_all(
        was_stopped(with_stop(use(trace, "x", 'b'), source.get_token())), stop_in(source));
    CHECK(std::get<0>(stopped));
    CHECK(trace.turns.is_taken("x"));
  }
  CHECK_FALSE(trace.turns.is_taken("x"));
  const bool ended = co_await use(trace, "x", 'c');
  CHECK_FALSE(ended);
}

Task<std::uint64_t> watch(Trace& trace) {
  UploadTurns::Use use(trace.turns, "x");
  const std::uint64_t before = use.moves();
  const bool woken = co_await use.offset_moved().wait();
  CHECK(woken);
  co_return use.moves() - before;
}

Task<void> move_in(Trace& trace) {
  for (int i = 0; i < 5; ++i) co_await schedule();
  trace.turns.note_move("y");
  trace.turns.note_move("x");
}

Task<void> moves_wake_watchers(Trace& trace) {
  trace.turns.note_move("x");
  const auto moves = co_await when_all(watch(trace), watch(trace), move_in(trace));
  CHECK(std::get<0>(moves) == 1);
  CHECK(std::get<1>(moves) == 1);
  CHECK_FALSE(trace.turns.is_taken("x"));
}

Task<void> many(Trace& trace) {
  std::vector<Task<bool>> tasks;
  for (int i = 0; i < 2000; ++i) {
    tasks.push_back(use(trace, "u" + std::to_string(i % 700), 'x', i % 5 == 0));
  }
  co_await when_all(std::move(tasks));
  for (int i = 0; i < 700; ++i) CHECK_FALSE(trace.turns.is_taken("u" + std::to_string(i)));
}

}  // namespace

TEST_CASE("turns are given in the order in which they are asked for") {
  run(first_come_first_served);
}
TEST_CASE("each upload has turns of its own") {
  run(each_upload_for_itself);
}
TEST_CASE("a turn is tried only when nobody has it") {
  run(only_when_nobody_waits);
}
TEST_CASE("a newer turn asks those before it to end") {
  run(newcomers_take_over);
}

TEST_CASE("a newer turn that expects less than others ends none of them") {
  run(late_newcomers_end_nobody);
}
TEST_CASE("who waits for a turn can be stopped") {
  run(waiting_is_stopped);
}
TEST_CASE("a move of the offset wakes its watchers") {
  run(moves_wake_watchers);
}
TEST_CASE("thousands of turns leave nothing behind") {
  run(many);
}
