#include "ring.h"

#ifdef NIGHTFORGE_URING
#include <liburing.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>

namespace nightforge {

constexpr unsigned kDepth = 64;

namespace {

class Ring {
 public:
  Ring() : error_(-io_uring_queue_init(kDepth, &ring_, 0)) {}
  ~Ring() {
    if (error_ == 0) io_uring_queue_exit(&ring_);
  }
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;

  int error() const { return error_; }
  RingResult read(int descriptor, const std::vector<Range>& ranges, std::atomic<size_t>& next,
                  std::atomic<int64_t>& calls);
  // Whether a call into the kernel failed: what it left in the ring must not be submitted later.
  bool broken() const { return broken_; }

 private:
  void fill(const std::vector<Range>& ranges, std::atomic<size_t>& next);
  void queue(unsigned slot);
  void enter();
  void reap();
  void complete(unsigned slot, int got);
  void fail(int error, const Range& range);
  void wait_for_submitted();

  io_uring ring_;
  int error_;
  int descriptor_ = -1;
  bool broken_ = false;
  Range slots_[kDepth];
  std::vector<unsigned> free_;  // the slots that no read is using
  unsigned queued_ = 0;         // not yet given to the kernel
  unsigned in_flight_ = 0;
  int64_t calls_ = 0;
  RingResult result_;
};

RingResult Ring::read(int descriptor, const std::vector<Range>& ranges, std::atomic<size_t>& next,
                      std::atomic<int64_t>& calls) {
  descriptor_ = descriptor;
  result_ = {};
  calls_ = 0;
  free_.clear();
  for (unsigned slot = kDepth; slot-- > 0;) free_.push_back(slot);  // slot 0 is the first in use
  do {
    fill(ranges, next);
    if (queued_ + in_flight_ > 0) enter();
    reap();
  } while (!broken_ && (queued_ + in_flight_ > 0 || (result_.error == 0 && next < ranges.size())));
  if (broken_) wait_for_submitted();
  calls += calls_;
  return result_;
}

void Ring::fill(const std::vector<Range>& ranges, std::atomic<size_t>& next) {
  while (result_.error == 0 && !free_.empty()) {
    size_t index = next++;
    if (index >= ranges.size()) return;
    unsigned slot = free_.back();
    free_.pop_back();
    slots_[slot] = ranges[index];
    queue(slot);
  }
}

void Ring::queue(unsigned slot) {
  // Never null: the ring has an entry for each slot.
  io_uring_sqe* entry = io_uring_get_sqe(&ring_);
  const Range& range = slots_[slot];
  io_uring_prep_read(entry, descriptor_, range.destination, range.bytes, range.offset);
  io_uring_sqe_set_data64(entry, slot);
  ++queued_;
}

void Ring::enter() {
  int submitted = io_uring_submit_and_wait(&ring_, 1);
  if (submitted >= 0) {
    queued_ -= submitted;
    in_flight_ += submitted;
    calls_ += submitted;
  } else if (submitted != -EINTR && submitted != -EAGAIN && submitted != -EBUSY) {
    broken_ = true;
    fail(-submitted, slots_[0]);
  }
}

void Ring::reap() {
  io_uring_cqe* entry;
  while (in_flight_ > 0 && io_uring_peek_cqe(&ring_, &entry) == 0) {
    unsigned slot = io_uring_cqe_get_data64(entry);
    int got = entry->res;
    io_uring_cqe_seen(&ring_, entry);
    --in_flight_;
    complete(slot, got);
  }
}

void Ring::complete(unsigned slot, int got) {
  Range& range = slots_[slot];
  if (got == 0) {
    fail(RingResult::kEnd, range);
  } else if (got < 0 && got != -EINTR && got != -EAGAIN) {
    fail(-got, range);
  } else if (got > 0) {
    range = {range.expert, range.destination + got, range.offset + got, range.bytes - got};
  }
  if (range.bytes > 0 && result_.error == 0) return queue(slot);
  free_.push_back(slot);
}

void Ring::fail(int error, const Range& range) {
  if (result_.error == 0) result_ = {error, range};
}

// The kernel takes no calls any more, yet writes into buffers until the last read is done.
void Ring::wait_for_submitted() {
  while (reap(), in_flight_ > 0) std::this_thread::sleep_for(std::chrono::microseconds(100));
}

std::unique_ptr<Ring>& this_threads() {
  thread_local std::unique_ptr<Ring> ring;
  return ring;
}

}  // namespace

bool ring_available() {
  static bool available = Ring().error() == 0;
  return available;
}

RingResult ring_read(int descriptor, const std::vector<Range>& ranges, std::atomic<size_t>& next,
                     std::atomic<int64_t>& calls) {
  auto& ring = this_threads();
  if (!ring) ring = std::make_unique<Ring>();
  if (int error = ring->error()) {
    ring.reset();
    throw std::runtime_error(std::string("expert_read: io_uring: ") + std::strerror(error));
  }
  RingResult result = ring->read(descriptor, ranges, next, calls);
  if (ring->broken()) ring.reset();
  return result;
}

}  // namespace nightforge

#else
#include <stdexcept>

namespace nightforge {

bool ring_available() { return false; }

RingResult ring_read(int, const std::vector<Range>&, std::atomic<size_t>&, std::atomic<int64_t>&) {
  throw std::runtime_error("expert_read: this build has no io_uring");
}

}  // namespace nightforge
#endif
