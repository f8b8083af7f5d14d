// The baseline `raw` of the workload `append`: one thread with one ring, one thread that commits
// (raw_committer.hpp), and no coroutines. Each upload writes a chunk at its offset, makes it stable
// in the chosen way, has the offset committed, counts the append as acknowledged and goes on.

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <fcntl.h>
#include <optional>
#include <string>
#include <sys/uio.h>
#include <unistd.h>
#include <utility>
#include <vector>

#include <liburing.h>

#include "bench.hpp"
#include "chunk.hpp"
#include "die.hpp"
#include "meter.hpp"
#include "raw_committer.hpp"

namespace tidemark::bench {
namespace {

using Clock = Meter::Clock;

constexpr int k_rwf_dontcache = 0x80;  // From linux/fs.h of 6.14.
constexpr unsigned k_max_blocked =
    64;  // As UringDriver; the kernel's own bound is four a processor.

// Durability::ordered: how far the row may be behind before it is committed in the background, and
// where the upload waits for it.
constexpr std::uint64_t k_ordered_bytes = 8 << 20;
constexpr std::uint64_t k_ordered_limit_bytes = 4 * k_ordered_bytes;
constexpr auto k_ordered_time = std::chrono::seconds(1);

RawMode choose_mode(const AppendWorkload& options) {
  if (options.durability == Durability::none) return RawMode::none;
  if (options.durability == Durability::ordered) return RawMode::syncfs;
  if (options.raw_mode) return *options.raw_mode;
  const bool whole_blocks = options.chunk_bytes % k_alignment_bytes == 0;
  return whole_blocks ? RawMode::direct_alloc : RawMode::syncfs;
}

struct Upload {
  std::string path;
  std::string old_path;  // Must live until the ring has taken it.
  int descriptor = -1;
  unsigned generation = 0;
  std::uint64_t written = 0;
  std::uint64_t committed = 0;
  bool writing = false;
  bool committing = false;
  Clock::time_point started;  // The present append.
  Clock::time_point commit_due;
};

class RawAppend {
 public:
  explicit RawAppend(const AppendWorkload& options);
  ~RawAppend();
  RawAppend(const RawAppend&) = delete;
  RawAppend& operator=(const RawAppend&) = delete;

  BenchResult run();

 private:
  // What a completion belongs to: the number of an upload, or one of these.
  static constexpr std::uint64_t k_wake = UINT64_MAX;
  static constexpr std::uint64_t k_unlink = UINT64_MAX - 1;

  io_uring_sqe* next_sqe(std::uint64_t user_data);
  void open_file(unsigned number);
  void start_append(unsigned number);
  void wait_for_commits();
  void complete(const io_uring_cqe& cqe);
  void written(unsigned number);
  void committed(const RawCommitter::Request& request);
  void request_commit(unsigned number);
  void begin_again(unsigned number);
  void turn();

  const AppendWorkload& options_;
  const RawMode mode_;
  const bool direct_;
  const Chunk chunk_;
  int rw_flags_ = 0;
  io_uring ring_{};
  RawCommitter committer_;
  std::vector<Upload> uploads_;
  std::vector<RawCommitter::Request> to_commit_;
  std::vector<RawCommitter::Request> done_;
  std::uint64_t wake_count_ = 0;
  std::uint64_t in_flight_ = 0;  // Appends, background commits and unlinks.
  bool stopping_ = false;
  std::optional<Meter> meter_;
};

RawAppend::RawAppend(const AppendWorkload& options)
    : options_(options),
      mode_(choose_mode(options)),
      direct_(mode_ == RawMode::direct || mode_ == RawMode::direct_alloc),
      chunk_(options.chunk_bytes),
      committer_(options.data_dir, options.uploads, options_.upload_bytes,
                 options.durability != Durability::none, mode_ == RawMode::syncfs),
      uploads_(options.uploads) {
  if (direct_ && options.chunk_bytes % k_alignment_bytes != 0) {
    die("direct writes need chunks of whole 4096 bytes");
  }
  if (mode_ == RawMode::dsync || direct_) rw_flags_ = RWF_DSYNC;
  if (mode_ == RawMode::dontcache) rw_flags_ = RWF_DSYNC | k_rwf_dontcache;
  const unsigned entries = std::min(3 * options.uploads + 1, 32768U);
  const int result =
      io_uring_queue_init(entries, &ring_, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);
  if (result < 0) die("io_uring_queue_init", -result);
  unsigned bounds[2] = {k_max_blocked, 0};
  io_uring_register_iowq_max_workers(&ring_, bounds);
  for (unsigned number = 0; number < options.uploads; ++number) open_file(number);
}

RawAppend::~RawAppend() {
  io_uring_queue_exit(&ring_);
  for (const Upload& upload : uploads_) ::close(upload.descriptor);
}

io_uring_sqe* RawAppend::next_sqe(std::uint64_t user_data) {
  io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
  if (sqe == nullptr) die("the ring is too small");
  io_uring_sqe_set_data64(sqe, user_data);
  return sqe;
}

void RawAppend::open_file(unsigned number) {
  Upload& upload = uploads_[number];
  upload.path = options_.data_dir /
                ("upload-" + std::to_string(number) + "." + std::to_string(upload.generation++));
  const int flags = O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | (direct_ ? O_DIRECT : 0);
  upload.descriptor = ::open(upload.path.c_str(), flags, 0666);
  if (upload.descriptor < 0) die(upload.path, errno);
  if (mode_ == RawMode::direct_alloc &&
      ::fallocate(upload.descriptor, FALLOC_FL_KEEP_SIZE, 0,
                  static_cast<off_t>(options_.upload_bytes)) != 0) {
    die("fallocate", errno);
  }
}

BenchResult RawAppend::run() {
  wait_for_commits();
  meter_.emplace();
  const auto end = Clock::now() + std::chrono::duration<double>(options_.seconds);
  for (unsigned number = 0; number < options_.uploads; ++number) start_append(number);
  while (Clock::now() < end) turn();
  const BenchResult result = meter_->finish(options_.chunk_bytes);
  stopping_ = true;
  while (in_flight_ > 0) turn();
  return result;
}

void RawAppend::turn() {
  const int result = io_uring_submit_and_wait(&ring_, 1);
  if (result < 0 && result != -EINTR) die("io_uring_submit_and_wait", -result);
  io_uring_cqe* cqe = nullptr;
  unsigned head = 0;
  unsigned count = 0;
  io_uring_for_each_cqe(&ring_, head, cqe) {
    complete(*cqe);
    ++count;
  }
  io_uring_cq_advance(&ring_, count);
  committer_.submit(to_commit_);
}

void RawAppend::start_append(unsigned number) {
  Upload& upload = uploads_[number];
  upload.writing = true;
  upload.started = Clock::now();
  io_uring_sqe* sqe = next_sqe(number);
  io_uring_prep_write(sqe, upload.descriptor, chunk_.bytes().data(),
                      static_cast<unsigned>(options_.chunk_bytes), upload.written);
  sqe->rw_flags = rw_flags_;
  if (mode_ == RawMode::fdatasync) {
    sqe->flags |= IOSQE_IO_LINK | IOSQE_CQE_SKIP_SUCCESS;
    sqe = next_sqe(number);
    io_uring_prep_fsync(sqe, upload.descriptor, IORING_FSYNC_DATASYNC);
  }
  ++in_flight_;
}

void RawAppend::wait_for_commits() {
  io_uring_sqe* sqe = next_sqe(k_wake);
  io_uring_prep_read(sqe, committer_.wake_descriptor(), &wake_count_, sizeof wake_count_, 0);
}

void RawAppend::complete(const io_uring_cqe& cqe) {
  if (cqe.user_data == k_wake) {
    wait_for_commits();
    committer_.take_done(done_);
    for (const auto& request : done_) committed(request);
  } else if (cqe.user_data == k_unlink) {
    if (cqe.res < 0) die("unlink", -cqe.res);
    --in_flight_;
  } else {
    const int expected = mode_ == RawMode::fdatasync ? 0 : static_cast<int>(options_.chunk_bytes);
    if (cqe.res < 0) die("write", -cqe.res);
    if (cqe.res != expected) die("a short write");
    --in_flight_;
    written(static_cast<unsigned>(cqe.user_data));
  }
}

void RawAppend::written(unsigned number) {
  Upload& upload = uploads_[number];
  upload.writing = false;
  upload.written += options_.chunk_bytes;
  if (options_.durability != Durability::ordered) return request_commit(number);
  const auto now = Clock::now();
  meter_->record(now - upload.started);
  const std::uint64_t behind = upload.written - upload.committed;
  const bool full = upload.written == options_.upload_bytes;
  if (!upload.committing && (behind >= k_ordered_bytes || now >= upload.commit_due || full)) {
    request_commit(number);
  }
  if (!full && behind < k_ordered_limit_bytes && !stopping_) start_append(number);
}

void RawAppend::request_commit(unsigned number) {
  Upload& upload = uploads_[number];
  upload.committing = true;
  to_commit_.push_back({number, upload.committed, upload.written});
  ++in_flight_;
}

void RawAppend::committed(const RawCommitter::Request& request) {
  Upload& upload = uploads_[request.upload];
  --in_flight_;
  upload.committed = request.next;
  upload.committing = false;
  const auto now = Clock::now();
  upload.commit_due = now + k_ordered_time;
  if (options_.durability != Durability::ordered) meter_->record(now - upload.started);
  if (stopping_ || upload.writing) return;
  if (upload.committed == options_.upload_bytes) begin_again(request.upload);
  if (upload.written == options_.upload_bytes) {
    request_commit(request.upload);
  } else {
    start_append(request.upload);
  }
}

void RawAppend::begin_again(unsigned number) {
  Upload& upload = uploads_[number];
  ::close(upload.descriptor);
  upload.old_path = std::move(upload.path);
  io_uring_prep_unlink(next_sqe(k_unlink), upload.old_path.c_str(), 0);
  ++in_flight_;
  upload.written = 0;
  upload.committed = 0;
  open_file(number);
}

}  // namespace

BenchResult run_raw_append(const AppendWorkload& options) {
  return RawAppend(options).run();
}

}  // namespace tidemark::bench
