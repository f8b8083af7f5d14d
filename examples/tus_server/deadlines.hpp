#pragma once

#include <chrono>
#include <list>

#include "asio_types.hpp"

namespace tus {

using Clock = std::chrono::steady_clock;

/// Ends the operations of a thread's sockets whose time is over: one timer for all of them, because
/// one for each operation would cost more than the operation. Used by its io_context's thread.
class Deadlines {
 public:
  /// What is watched: `expire` is called again and again while the deadline is past.
  class Watched {
   public:
    virtual void expire() = 0;

    Clock::time_point deadline = Clock::time_point::max();

   protected:
    ~Watched() = default;
  };
  using Place = std::list<Watched*>::iterator;

  explicit Deadlines(asio::io_context& context) : timer_(context.get_executor()) {}

  Place add(Watched& watched);
  void remove(Place place) { watched_.erase(place); }

 private:
  static constexpr std::chrono::milliseconds k_period{25};

  void wait();

  asio::basic_waitable_timer<Clock, asio::wait_traits<Clock>, IoExecutor> timer_;
  std::list<Watched*> watched_;
  bool waiting_ = false;  // Not while nothing is watched: an idle server sleeps.
};

}  // namespace tus
