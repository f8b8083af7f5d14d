#pragma once

// Every test of the rooms runs over each driver: ctest sets TIDEMARK_TEST_DRIVER.

#include <cstdlib>
#include <stdexcept>
#include <string_view>

#include <tidemark/engine/engine.hpp>

namespace tidemark::test {

/// The driver that TIDEMARK_TEST_DRIVER names, uring or threads; automatic when it is not set.
inline DriverKind driver_kind() {
  const char* const name = std::getenv("TIDEMARK_TEST_DRIVER");
  if (name == nullptr) return DriverKind::automatic;
  if (name == std::string_view("uring")) return DriverKind::uring;
  if (name == std::string_view("threads")) return DriverKind::threads;
  throw std::runtime_error("TIDEMARK_TEST_DRIVER is uring or threads");
}

/// The default options, on that driver.
inline EngineOptions engine_options() {
  EngineOptions options;
  options.driver = driver_kind();
  return options;
}

/// An engine with one executor, for tests that need nothing special.
struct EngineFixture {
  Engine engine{engine_options()};
  Executor& executor = engine.executor();
};

}  // namespace tidemark::test
