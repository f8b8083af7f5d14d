#include "deadlines.hpp"

namespace tus {

Deadlines::Place Deadlines::add(Watched& watched) {
  watched_.push_front(&watched);
  if (!waiting_) wait();
  return watched_.begin();
}

void Deadlines::wait() {
  waiting_ = !watched_.empty();
  if (!waiting_) return;
  timer_.expires_after(k_period);
  timer_.async_wait([this](const boost::system::error_code& error) {
    if (error) return;
    const Clock::time_point now = Clock::now();
    for (Watched* const each : watched_) {
      if (each->deadline <= now) each->expire();
    }
    wait();
  });
}

}  // namespace tus
