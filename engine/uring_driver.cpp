#include <algorithm>
#include <array>
#include <cerrno>
#include <exception>
#include <fcntl.h>
#include <linux/openat2.h>
#include <poll.h>
#include <sys/syscall.h>
#include <system_error>
#include <unistd.h>
#include <utility>

#include <tidemark/engine/assert.hpp>
#include <tidemark/engine/uring_driver.hpp>

namespace tidemark {
namespace {

// Tags in a completion's user data; an Operation's own address has the low bits clear.
constexpr std::uint64_t k_cancel_bit = 1;
constexpr std::uint64_t k_event_tag = 2;

// A longer transfer than the kernel makes at once would be cut short there in any case.
constexpr std::uint64_t k_max_transfer_bytes = std::uint64_t{1} << 30;

// How many writes and the like may block in the kernel at once. Its own bound, of four for each
// processor, left a disk with 256 writers idle (64 KiB each: 12 k/s against 20 k/s).
constexpr unsigned k_max_blocked = 64;

constexpr std::array k_needed = {
    IORING_OP_READ,   IORING_OP_WRITE,     IORING_OP_FSYNC,        IORING_OP_OPENAT2,
    IORING_OP_STATX,  IORING_OP_FALLOCATE, IORING_OP_UNLINKAT,     IORING_OP_RENAMEAT,
    IORING_OP_LINKAT, IORING_OP_MKDIRAT,   IORING_OP_ASYNC_CANCEL, IORING_OP_POLL_ADD,
};

std::system_error refused(int error, const char* what) {
  return std::system_error(error, std::generic_category(), what);
}

/// Makes the ring with the best flags that this kernel knows.
void make_ring(io_uring& ring, unsigned entries) {
  constexpr unsigned k_base = IORING_SETUP_R_DISABLED | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP;
  constexpr std::array k_flags = {
      k_base | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
      k_base | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
      k_base,
  };
  int error = 0;
  for (const unsigned flags : k_flags) {
    io_uring_params params{};
    params.flags = flags;
    params.cq_entries = 4 * entries;
    error = -io_uring_queue_init_params(entries, &ring, &params);
    if (error != EINVAL) break;
  }
  if (error != 0) throw refused(error, "io_uring_setup");
}

void check_abilities(io_uring& ring) {
  io_uring_probe* const probe = io_uring_get_probe_ring(&ring);
  const bool all = probe != nullptr && std::all_of(k_needed.begin(), k_needed.end(), [&](int op) {
                     return io_uring_opcode_supported(probe, op) != 0;
                   });
  io_uring_free_probe(probe);
  constexpr unsigned k_features = IORING_FEAT_NODROP | IORING_FEAT_EXT_ARG;
  if (!all || (ring.features & k_features) != k_features) {
    throw refused(ENOSYS, "io_uring lacks an operation that is needed");
  }
}

/// What the ring has no operation for, or what would hold up the ring's thread.
bool needs_pool(Operation::Kind kind) {
  switch (kind) {
    case Operation::Kind::truncate:
    case Operation::Kind::change_mode:
    case Operation::Kind::list_directory:
    case Operation::Kind::copy_range:
    case Operation::Kind::sync_filesystem:
    case Operation::Kind::stat_filesystem:
    case Operation::Kind::lock:
    case Operation::Kind::close:  // The last close of an unlinked file frees its blocks.
      return true;
    default:
      return false;
  }
}

/// Fills in what the kernel is to do.
void prepare(io_uring_sqe* sqe, Operation& operation) {
  const auto length = static_cast<unsigned>(std::min(operation.length, k_max_transfer_bytes));
  switch (operation.kind) {
    case Operation::Kind::read:
      io_uring_prep_read(sqe, operation.fd, operation.buffer, length, operation.offset);
      return;
    case Operation::Kind::write:
      io_uring_prep_write(sqe, operation.fd, operation.const_buffer, length, operation.offset);
      sqe->rw_flags = static_cast<int>(operation.flags);
      return;
    case Operation::Kind::sync:
      io_uring_prep_fsync(sqe, operation.fd, operation.flags == 0 ? 0 : IORING_FSYNC_DATASYNC);
      return;
    case Operation::Kind::open:
      // The kernel copies `how` when it takes the request, so it lives in the operation.
      io_uring_prep_openat2(sqe, operation.fd, operation.path,
                            reinterpret_cast<open_how*>(&operation.how));
      return;
    case Operation::Kind::stat:
      io_uring_prep_statx(sqe, operation.fd, operation.path, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW,
                          STATX_BASIC_STATS | STATX_BTIME, operation.stat);
      return;
    case Operation::Kind::allocate:
      io_uring_prep_fallocate(sqe, operation.fd, FALLOC_FL_KEEP_SIZE,
                              static_cast<off_t>(operation.offset),
                              static_cast<off_t>(operation.length));
      return;
    case Operation::Kind::unlink:
      io_uring_prep_unlinkat(sqe, operation.fd, operation.path, 0);
      return;
    case Operation::Kind::rename:
      io_uring_prep_renameat(sqe, operation.fd, operation.path, operation.other_fd,
                             operation.other_path, 0);
      return;
    case Operation::Kind::link:
      io_uring_prep_linkat(sqe, operation.fd, operation.path, operation.other_fd,
                           operation.other_path, 0);
      return;
    case Operation::Kind::make_directory:
      io_uring_prep_mkdirat(sqe, operation.fd, operation.path, operation.mode);
      return;
    default:
      TIDEMARK_ASSERT(false, "this operation is the pool's");
  }
}

}  // namespace

UringDriver::UringDriver(const DriverOptions& options, Environment& environment)
    : environment_(environment),
      max_in_ring_(options.queue_entries),
      pool_(options.worker_threads, event_) {
  make_ring(ring_, options.queue_entries);
  try {
    check_abilities(ring_);
  } catch (...) {
    io_uring_queue_exit(&ring_);
    throw;
  }
}

UringDriver::~UringDriver() {
  TIDEMARK_ASSERT(in_ring_ == 0 && waiting_.empty() && finished_.empty(),
                  "a driver ends only after its operations");
  io_uring_queue_exit(&ring_);
}

bool UringDriver::submit(Operation& operation) {
  ++stats_.submitted;
  if (detail::perform_at_once(operation)) {
    ++stats_.completed;
    return true;
  }
  if (needs_pool(operation.kind)) {
    pool_.submit(operation);
  } else if (in_ring_ < max_in_ring_) {
    enqueue(operation);
  } else {
    waiting_.push(operation);
  }
  return false;
}

void UringDriver::enqueue(Operation& operation) {
  io_uring_sqe* const sqe = next_sqe();
  prepare(sqe, operation);
  io_uring_sqe_set_data(sqe, &operation);
  operation.awaited = 1;
  operation.cancel_sent = false;
  ++in_ring_;
}

io_uring_sqe* UringDriver::next_sqe() {
  io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
  while (sqe == nullptr) {  // Cancels come on top of the operations that the queue is sized for.
    enter(TimePoint::min());
    sqe = io_uring_get_sqe(&ring_);
  }
  return sqe;
}

void UringDriver::cancel(Operation& operation) {
  if (operation.awaited == 0) {
    if (!waiting_.remove(operation) && !pool_.withdraw(operation)) return;
    operation.result = -ECANCELED;
    finished_.push(operation);
    return;
  }
  io_uring_sqe* const sqe = next_sqe();
  io_uring_prep_cancel(sqe, &operation, 0);
  io_uring_sqe_set_data64(sqe, reinterpret_cast<std::uint64_t>(&operation) | k_cancel_bit);
  ++operation.awaited;
  operation.cancel_sent = true;
}

void UringDriver::wait(std::optional<TimePoint> deadline) {
  if (!enabled_) {
    // Debian's liburing 2.3 declares io_uring_enable_rings but does not export it.
    const long error =
        ::syscall(SYS_io_uring_register, ring_.ring_fd, IORING_REGISTER_ENABLE_RINGS, nullptr, 0);
    TIDEMARK_ASSERT(error == 0, "the executor's thread enables the ring once");
    enabled_ = true;
    unsigned bounds[2] = {k_max_blocked, 0};  // 0: leaves the workers for sockets as they are.
    io_uring_register_iowq_max_workers(&ring_, bounds);
  }
  watch_event();
  enter(finished_.empty() ? deadline : TimePoint::min());
  reap();
}

void UringDriver::watch_event() {
  if (watching_event_) return;
  io_uring_sqe* const sqe = next_sqe();
  io_uring_prep_poll_add(sqe, event_.fd(), POLLIN);
  io_uring_sqe_set_data64(sqe, k_event_tag);
  watching_event_ = true;
}

void UringDriver::enter(std::optional<TimePoint> deadline) {
  const TimePoint now = deadline ? environment_.now() : TimePoint::min();
  int result = 0;
  if (deadline && *deadline <= now) {
    constexpr unsigned k_pending = IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW;
    const bool quiet = io_uring_sq_ready(&ring_) == 0 &&
                       (io_uring_smp_load_acquire(ring_.sq.kflags) & k_pending) == 0;
    if (quiet) return;
    result = io_uring_submit_and_get_events(&ring_);
  } else {
    io_uring_cqe* first = nullptr;
    __kernel_timespec timeout{};
    if (deadline) timeout = detail::time_left(*deadline, now);
    result =
        io_uring_submit_and_wait_timeout(&ring_, &first, 1, deadline ? &timeout : nullptr, nullptr);
  }
  ++stats_.system_enters;
  // What was not taken stays queued and is offered again in the next turn.
  TIDEMARK_ASSERT(
      result >= 0 || result == -ETIME || result == -EINTR || result == -EAGAIN || result == -EBUSY,
      "the ring takes what is submitted");
}

void UringDriver::reap() {
  OperationQueue finished = std::exchange(finished_, OperationQueue());
  io_uring_cqe* cqe = nullptr;
  unsigned head = 0;
  unsigned seen = 0;
  io_uring_for_each_cqe(&ring_, head, cqe) {
    ++seen;
    if (cqe->user_data == k_event_tag) {
      event_.clear();
      watching_event_ = false;
      continue;
    }
    auto& operation = *reinterpret_cast<Operation*>(cqe->user_data & ~k_cancel_bit);
    if ((cqe->user_data & k_cancel_bit) == 0) operation.result = cqe->res;
    if (--operation.awaited != 0) continue;
    --in_ring_;
    if (operation.result == -ECANCELED && !operation.cancel_sent) {
      submit_elsewhere(operation);
    } else {
      finished.push(operation);
    }
  }
  io_uring_cq_advance(&ring_, seen);
  OperationQueue from_pool = pool_.take_completed();
  while (Operation* operation = from_pool.pop()) finished.push(*operation);
  while (!waiting_.empty() && in_ring_ < max_in_ring_) enqueue(*waiting_.pop());
  while (Operation* operation = finished.pop()) {
    ++stats_.completed;
    operation->complete(*operation);
  }
}

void UringDriver::submit_elsewhere(Operation& operation) {
  // At the limit of tasks the kernel cancels by itself what it would need a new thread for. That
  // it was out of threads must not be taken for a stop, nor EAGAIN for a reason to repeat it.
  try {
    pool_.submit(operation);
  } catch (const std::exception&) {
    operation.result = -ENOMEM;
    finished_.push(operation);
  }
}

}  // namespace tidemark
