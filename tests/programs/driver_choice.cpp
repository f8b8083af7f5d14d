// driver_choice: makes an engine of two executors on the automatic driver, then one on io_uring;
// prints what they run on, what they logged, and why the second was refused.
#include <cstdio>
#include <mutex>
#include <string>
#include <system_error>

#include <tidemark/engine/engine.hpp>

namespace {

class LogKeeper : public tidemark::Environment {
 public:
  void log(tidemark::LogLevel level, std::string_view line) override {
    const std::lock_guard lock(mutex_);
    lines_.append(level == tidemark::LogLevel::info ? "info: " : "warning: ");
    lines_.append(line).append("\n");
  }
  std::string lines() {
    const std::lock_guard lock(mutex_);
    return lines_;
  }

 private:
  std::mutex mutex_;
  std::string lines_;
};

}  // namespace

int main() {
  LogKeeper environment;
  tidemark::EngineOptions options;
  options.environment = &environment;
  options.executors = 2;
  {
    const tidemark::Engine engine(options);
    std::printf("automatic: %s\n",
                engine.driver() == tidemark::DriverKind::uring ? "uring" : "threads");
  }
  std::fputs(environment.lines().c_str(), stdout);
  options.driver = tidemark::DriverKind::uring;
  try {
    const tidemark::Engine engine(options);
    std::puts("uring: works");
  } catch (const std::system_error& error) {
    std::printf("uring: %s\n", error.what());
  }
}
