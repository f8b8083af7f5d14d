#pragma once

// What a storage asks of the driver, as a test sees it.

#include <array>
#include <cstddef>
#include <cstdint>
#include <fcntl.h>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <sys/uio.h>
#include <unistd.h>
#include <utility>
#include <vector>

#include "fault_driver.hpp"

namespace tidemark::test {

/// The last component of what `fd` is open on.
inline std::string name_of_descriptor(int fd) {
  std::array<char, 4096> target{};
  const std::string link = "/proc/self/fd/" + std::to_string(fd);
  const ssize_t size = ::readlink(link.c_str(), target.data(), target.size());
  if (size <= 0) return {};
  const std::string_view path(target.data(), static_cast<std::size_t>(size));
  return std::filesystem::path(path).filename();
}

/// The last component of what an operation is about.
inline std::string name_of(const Operation& operation) {
  const bool by_path = *operation.path != '\0';
  return by_path ? std::filesystem::path(operation.path).filename().string()
                 : name_of_descriptor(operation.fd);
}

struct LoggedOperation {
  Operation::Kind kind = Operation::Kind::read;
  std::string name;
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
  std::uint32_t flags = 0;
  std::uintptr_t memory = 0;
  bool direct = false;  // O_DIRECT was set.

  std::uint64_t end() const { return offset + length; }
};

/// Keeps every operation that is submitted while it lives, and then asks `faults` about it.
///
/// Thread safety: every member from any thread. Lifetime: the environment outlives it, and has no
/// other `on_submit` meanwhile.
class OperationLog {
 public:
  using Kind = Operation::Kind;

  explicit OperationLog(FaultEnvironment& environment, FaultEnvironment::Choose faults = {})
      : environment_(environment) {
    environment_.on_submit([kept = kept_, faults = std::move(faults)](const Operation& operation,
                                                                      std::uint64_t number) {
      kept->add(operation);
      return faults ? faults(operation, number) : Fault::none();
    });
  }
  ~OperationLog() { environment_.on_submit(nullptr); }
  OperationLog(const OperationLog&) = delete;
  OperationLog& operator=(const OperationLog&) = delete;

  std::vector<LoggedOperation> all() const {
    const std::lock_guard lock(kept_->mutex);
    return kept_->operations;
  }
  /// Those of one kind that are about `name`, or about anything.
  std::vector<LoggedOperation> of(Kind kind, std::optional<std::string> name = {}) const {
    std::vector<LoggedOperation> found = all();
    std::erase_if(found, [&](const LoggedOperation& operation) {
      return operation.kind != kind || (name && operation.name != *name);
    });
    return found;
  }
  std::size_t count(Kind kind, std::optional<std::string> name = {}) const {
    return of(kind, std::move(name)).size();
  }
  /// Syncs of all of the file or folder `name`.
  std::size_t whole_syncs(const std::string& name) const {
    return count(Kind::sync, name) + count(Kind::sync_filesystem);
  }
  void clear() {
    const std::lock_guard lock(kept_->mutex);
    kept_->operations.clear();
  }

 private:
  /// Shared with a call that an executor may still be in at the end.
  struct Kept {
    void add(const Operation& operation) {
      LoggedOperation logged;
      logged.kind = operation.kind;
      logged.name = name_of(operation);
      logged.offset = operation.offset;
      logged.length = operation.length;
      logged.flags = operation.flags;
      logged.memory = reinterpret_cast<std::uintptr_t>(operation.const_buffer);
      logged.direct = operation.fd >= 0 && (::fcntl(operation.fd, F_GETFL) & O_DIRECT) != 0;
      const std::lock_guard lock(mutex);
      operations.push_back(std::move(logged));
    }

    std::mutex mutex;
    std::vector<LoggedOperation> operations;
  };

  FaultEnvironment& environment_;
  const std::shared_ptr<Kept> kept_ = std::make_shared<Kept>();
};

/// Does `fault` to the first `times` operations of `kind` that are about `name`.
inline FaultEnvironment::Choose first_of(Operation::Kind kind, std::string name, int times,
                                         Fault fault) {
  return [=](const Operation& operation, std::uint64_t) mutable {
    const bool meant = times > 0 && operation.kind == kind && name_of(operation) == name;
    if (!meant) return Fault::none();
    --times;
    return fault;
  };
}

/// Does `fault` to the operation of that number. A failed opening is never done, and a failed
/// closing always, since a descriptor would stay open.
inline FaultEnvironment::Choose at_step(std::uint64_t step, Fault fault) {
  return [=](const Operation& operation, std::uint64_t number) {
    using Kind = Fault::Kind;
    if (number != step) return Fault::none();
    const bool fails = fault.kind == Kind::answer || fault.kind == Kind::done_but_answer;
    if (fails && operation.kind == Operation::Kind::open) return Fault::answer(fault.result);
    if (fails && operation.kind == Operation::Kind::close) {
      return Fault::done_but_answer(fault.result);
    }
    return fault;
  };
}

/// Whether the operation makes the bytes of `name` stable: a sync of it, or a write that is
/// stable when it returns.
inline bool makes_stable(const Operation& operation, const std::string& name) {
  using Kind = Operation::Kind;
  if (operation.kind == Kind::sync_filesystem) return true;
  const bool stable = operation.kind == Kind::sync ||
                      (operation.kind == Kind::write && (operation.flags & RWF_DSYNC) != 0);
  return stable && name_of(operation) == name;
}

}  // namespace tidemark::test
