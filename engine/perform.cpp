#include <tidemark/engine/perform.hpp>

namespace tidemark::detail {

bool OperationAwaiter::submit() {
  if (heeds_stop_ && promise_->stop != nullptr && promise_->stop->stop_requested()) {
    result = -ECANCELED;
    return true;
  }
  while (promise_->executor->driver().submit(*this)) {
    if (result != -EINTR) return true;
  }
  return false;
}

bool OperationAwaiter::suspend() {
  complete = &OperationAwaiter::on_complete;
  if (submit()) return false;
  relay_.arm(*promise_, this, &OperationAwaiter::on_stop, heeds_stop_);
  return true;
}

void OperationAwaiter::on_complete(Operation& operation) noexcept {
  auto& self = static_cast<OperationAwaiter&>(operation);
  if (self.result == -EINTR && !self.submit()) return;
  self.relay_.finish();
}

void OperationAwaiter::on_stop(void* awaiter) noexcept {
  auto& self = *static_cast<OperationAwaiter*>(awaiter);
  self.promise_->executor->driver().cancel(self);
}

}  // namespace tidemark::detail
