#include <tidemark/engine/scope.hpp>

namespace tidemark {

Scope::Scope(Executor& executor)
    : executor_(executor), from_engine_(executor.engine_stop(), detail::ForwardStop{&source_}) {}

Scope::~Scope() {
  TIDEMARK_ASSERT(running_.load() == 0, "a scope is joined before its end");
}

Scope::Prepared Scope::prepare(Task<void> task) {
  Executor* const bound = detail::TaskAccess::promise(task).executor;
  TIDEMARK_ASSERT(bound == nullptr || bound == &executor_, "a scope's tasks share its executor");
  return std::make_shared<detail::Root<void>>(
      executor_, std::move(task), [this](Task<void>& done) { finished(done); },
      source_.get_token());
}

void Scope::spawn(const Prepared& task) noexcept {
  running_.fetch_add(1, std::memory_order_relaxed);
  detail::Root<void>::begin(task);
}

void Scope::finished(Task<void>& task) {
  try {
    detail::TaskAccess::promise(task).take();
  } catch (...) {
    if (!error_) error_ = std::current_exception();
    source_.request_stop();
  }
  if (running_.fetch_sub(1, std::memory_order_acq_rel) == 1) idle_.wake_all();
}

Task<void> Scope::join() {
  const std::stop_token outer = co_await current_stop_token();
  {
    const detail::StopForwarder from_outer(outer, detail::ForwardStop{&source_});
    while (running_.load(std::memory_order_acquire) != 0) co_await idle_.wait_to_end();
  }
  if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
}

}  // namespace tidemark
