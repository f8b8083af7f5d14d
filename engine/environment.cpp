#include <cerrno>
#include <condition_variable>
#include <cstdio>
#include <fcntl.h>
#include <mutex>
#include <pthread.h>
#include <random>
#include <sys/file.h>
#include <system_error>
#include <thread>
#include <unistd.h>

#include <tidemark/engine/assert.hpp>
#include <tidemark/engine/driver.hpp>
#include <tidemark/engine/environment.hpp>

namespace tidemark {
namespace {

class RealTurnThread final : public TurnThread {
 public:
  RealTurnThread(const std::string& name, Turn turn)
      : turn_(std::move(turn)), thread_([this] { loop(); }) {
    // The kernel keeps 15 characters of a thread's name.
    pthread_setname_np(thread_.native_handle(), name.substr(0, 15).c_str());
  }

  ~RealTurnThread() override {
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    changed_.notify_one();
    thread_.join();
  }

  void wake() override {
    {
      std::lock_guard lock(mutex_);
      woken_ = true;
    }
    changed_.notify_one();
  }

 private:
  void loop() {
    std::unique_lock lock(mutex_);
    while (!stopping_) {
      woken_ = false;
      lock.unlock();
      const std::chrono::nanoseconds pause = turn_();
      lock.lock();
      const auto ready = [this] { return woken_ || stopping_; };
      if (pause == k_until_woken) {
        changed_.wait(lock, ready);
      } else if (pause > std::chrono::nanoseconds::zero()) {
        changed_.wait_until(lock, later(std::chrono::steady_clock::now(), pause), ready);
      }
    }
  }

  Turn turn_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool woken_ = false;
  bool stopping_ = false;
  std::thread thread_;  // Last: the loop uses the members above.
};

void set_flag(int fd, int flag, bool wanted, const char* what) {
  const int flags = ::fcntl(fd, F_GETFL);
  if (flags < 0 || ::fcntl(fd, F_SETFL, wanted ? flags | flag : flags & ~flag) != 0) {
    throw std::system_error(errno, std::generic_category(), what);
  }
}

}  // namespace

TimePoint Environment::now() {
  return std::chrono::steady_clock::now();
}

SystemTime Environment::system_now() {
  return std::chrono::floor<std::chrono::microseconds>(std::chrono::system_clock::now());
}

std::uint64_t Environment::random() {
  thread_local std::mt19937_64 generator{std::random_device{}()};
  return generator();
}

void Environment::log(LogLevel level, std::string_view line) {
  if (level == LogLevel::info) return;
  std::fprintf(stderr, "tidemark: %.*s\n", static_cast<int>(line.size()), line.data());
}

void Environment::close_descriptor(int fd) noexcept {
  // The close alone would not end a lock at once: a request of the ring may let its file go only
  // after its completion was seen.
  ::flock(fd, LOCK_UN);
  ::close(fd);
}

void Environment::set_direct(int fd, bool direct) {
  set_flag(fd, O_DIRECT, direct, "O_DIRECT");
}

void Environment::set_blocking(int fd) {
  set_flag(fd, O_NONBLOCK, false, "O_NONBLOCK");
}

std::unique_ptr<TurnThread> Environment::start_thread(const std::string& name, Turn turn) {
  return std::make_unique<RealTurnThread>(name, std::move(turn));
}

std::unique_ptr<Driver> Environment::make_driver(const DriverOptions& options) {
  return detail::make_real_driver(options, *this);
}

Environment& Environment::real() {
  static Environment environment;
  return environment;
}

}  // namespace tidemark
