// which_driver: prints the driver that `automatic` chooses here, uring or threads.
#include <cstdio>

#include <tidemark/engine/engine.hpp>

int main() {
  const tidemark::Engine engine;
  std::puts(engine.driver() == tidemark::DriverKind::uring ? "uring" : "threads");
}
