#include "prefetch.h"

#include <algorithm>
#include <functional>
#include <stdexcept>
#include <thread>

#include "buffers.h"

namespace nightforge {

namespace {

// The thread that reads ahead, one job after the other: the layers' turns come in that order.
class Reader {
 public:
  // Leaked on purpose, as the pool is. The thread starts with the first layer that is configured to read ahead.
  static Reader& shared() {
    static Reader* reader = new Reader;
    return *reader;
  }

  void enqueue(std::function<void()> job) {
    std::lock_guard lock(mutex_);
    jobs_.push_back(std::move(job));
    wake_.notify_one();
  }

 private:
  Reader() : thread_(&Reader::work, this) { thread_.detach(); }

  void work() {
    while (true) {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [&] { return !jobs_.empty(); });
      auto job = std::move(jobs_.front());
      jobs_.pop_front();
      lock.unlock();
      job();
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> jobs_;
  std::thread thread_;
};

// Gives each expert its slot: the one that holds it, else one whose content nobody needs. Returns those to be read.
std::vector<size_t> place(const std::vector<int>& experts, const std::vector<int>& held, int* slots) {
  std::vector<bool> taken(held.size(), false);
  std::vector<size_t> misses;
  for (size_t i = 0; i < experts.size(); ++i) {
    size_t slot = 0;
    while (slot < held.size() && (taken[slot] || held[slot] != experts[i])) ++slot;
    if (slot == held.size()) {
      misses.push_back(i);
    } else {
      taken[slot] = true;
      slots[i] = slot;
    }
  }
  for (size_t i : misses) {
    size_t slot = std::find(taken.begin(), taken.end(), false) - taken.begin();
    taken[slot] = true;
    slots[i] = slot;
  }
  return misses;
}

}  // namespace

void Turn::read_ahead(const ExpertFile& file, const std::vector<int>& experts, const ReadMethod& method) {
  for (size_t slot = 0; slot < experts.size() && slot < held_.size() && begin(); ++slot) {
    int expert = experts[slot];
    try {
      file.read({expert}, {records_.data<char>() + slot * file.stride()}, method);
      read_counters().prefetched_bytes += file.stride();
    } catch (const std::runtime_error&) {
      expert = kNone;  // if the token needs it, its own read fails and says so
    }
    end(slot, expert);
  }
}

bool Turn::begin() {
  std::lock_guard lock(mutex_);
  return reading_ = !claimed_;
}

void Turn::end(size_t slot, int expert) {
  std::lock_guard lock(mutex_);
  held_[slot] = expert;
  reading_ = false;
  idle_.notify_all();
}

std::vector<int> Turn::claim() {
  std::unique_lock lock(mutex_);
  claimed_ = true;
  idle_.wait(lock, [&] { return !reading_; });
  return held_;
}

std::shared_ptr<Turn> Prefetch::make_turn(int count) const {
  mx::array records({count, static_cast<int>(file_->stride() / 4)}, mx::uint32, nullptr, {});
  auto lease = BufferPool::shared().take(records.nbytes());
  records.set_data(std::move(lease.data), records.size(), records.strides(), {true, true, false}, lease.offset);
  return std::make_shared<Turn>(std::move(records));
}

std::shared_ptr<Turn> Prefetch::take(int count) {
  Reader::shared();
  std::lock_guard lock(mutex_);
  auto turn = std::move(coming_);
  if (!turn || turn->records().shape(0) != count) turn = make_turn(count);
  pending_.push_back(turn);
  coming_ = make_turn(count);
  return turn;
}

void Prefetch::read(Turn& turn, const std::vector<int>& experts, int* slots) {
  auto held = turn.claim();
  auto misses = place(experts, held, slots);
  std::vector<int> missing;
  std::vector<char*> destinations;
  for (size_t i : misses) {
    missing.push_back(experts[i]);
    destinations.push_back(const_cast<char*>(turn.records().data<char>()) + slots[i] * file_->stride());
  }
  read_counters().hit_bytes += (experts.size() - misses.size()) * file_->stride();
  file_->read(missing, destinations, method_);
  {
    std::lock_guard lock(mutex_);
    previous_ = experts;
    while (!pending_.empty() && (pending_.front().expired() || pending_.front().lock().get() == &turn)) {
      pending_.pop_front();
    }
  }
  if (auto next = next_.lock()) next->start();
}

void Prefetch::start() {
  std::lock_guard lock(mutex_);
  while (!pending_.empty() && pending_.front().expired()) pending_.pop_front();
  auto turn = pending_.empty() ? coming_ : pending_.front().lock();
  if (!turn || previous_.empty()) return;
  Reader::shared().enqueue([turn, file = file_, experts = previous_, method = method_] {
    turn->read_ahead(*file, experts, method);
  });
}

}  // namespace nightforge
