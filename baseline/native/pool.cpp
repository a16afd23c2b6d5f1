#include "pool.h"

#include <algorithm>
#include <chrono>

namespace nightforge {

// Longer than what MLX computes between two kernels of a token, and far shorter than a token.
constexpr auto kPatience = std::chrono::microseconds(200);

// Waits until `done` or until patience ends, on a core that it yields to whoever else has work: MLX's main thread, above
// all, which prepares what comes next.
template <class Done>
static void spin_until(Done done) {
  auto deadline = std::chrono::steady_clock::now() + kPatience;
  for (int turn = 1; !done(); ++turn) {
    std::this_thread::yield();
    if (turn % 64 == 0 && std::chrono::steady_clock::now() > deadline) return;
  }
}

// Those that may spin beside the thread that gives out the work.
static int spare_cores() {
  static const int spare = std::max<int>(std::thread::hardware_concurrency(), 1) - 1;
  return spare;
}

Pool& Pool::shared() {
  // Leaked on purpose: MLX's stream threads may still be in `run` while static objects are destroyed.
  static Pool* pool = new Pool;
  return *pool;
}

Pool::~Pool() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  for (auto& worker : workers_) worker.join();
}

void Pool::reserve(int threads) {
  std::lock_guard lock(mutex_);
  while (static_cast<int>(workers_.size()) + 1 < threads) workers_.emplace_back(&Pool::work, this);
}

int Pool::size() {
  std::lock_guard lock(mutex_);
  return static_cast<int>(workers_.size()) + 1;
}

void Pool::run(int tasks, int threads, const std::function<void(int)>& task) {
  Job job{.task = task, .tasks = tasks, .seats = std::min(threads, tasks) - 1};
  if (job.seats > 0) post(job);
  drain(job);
  if (job.posted) retire(job);
  if (job.error) std::rethrow_exception(job.error);
}

void Pool::post(Job& job) {
  int sleepers;
  {
    std::lock_guard lock(mutex_);
    jobs_.push_back(&job);
    job.posted = true;
    sleepers = std::min<int>(job.seats, workers_.size()) - looking_;
  }
  ++posted_;  // with the lock released, or those that look would run into it and sleep
  for (int i = 0; i < sleepers; ++i) wake_.notify_one();
}

// Returns when no worker is at the job, and none can find it any more.
void Pool::retire(Job& job) {
  {
    std::lock_guard lock(mutex_);
    std::erase(jobs_, &job);
  }
  if (spare_cores() > 0) spin_until([&] { return job.running == 0; });
  if (job.running == 0) return;
  ++waiting_;
  std::unique_lock lock(mutex_);
  finished_.wait(lock, [&] { return job.running == 0; });
  --waiting_;
}

void Pool::work() {
  std::unique_lock lock(mutex_);
  while (true) {
    Job* job = open_job();
    if (!job) look_for_work(lock);
    wake_.wait(lock, [&] { return stop_ || (job = open_job()); });
    if (stop_) return;
    --job->seats;
    ++job->running;
    lock.unlock();
    drain(*job);
    // After this the job may be gone. Whoever waits for it counted himself before he looked at `running`.
    bool last = --job->running == 0;
    lock.lock();
    if (last && waiting_ > 0) finished_.notify_all();
  }
}

// Returns with the lock held, with or without success. As many threads look as there are cores for it: more would
// keep those from working that have work.
void Pool::look_for_work(std::unique_lock<std::mutex>& lock) {
  if (looking_ >= spare_cores()) return;
  ++looking_;
  int seen = posted_;
  lock.unlock();
  spin_until([&] { return posted_ != seen; });
  lock.lock();
  --looking_;
}

Pool::Job* Pool::open_job() {
  for (Job* job : jobs_) {
    if (job->seats > 0 && job->next < job->tasks) return job;
  }
  return nullptr;
}

// Runs tasks of `job` until none is left to begin.
void Pool::drain(Job& job) {
  for (int index; (index = job.next++) < job.tasks;) {
    try {
      job.task(index);
    } catch (...) {
      std::lock_guard lock(mutex_);
      if (!job.error) job.error = std::current_exception();
      job.next = job.tasks;
    }
  }
}

}  // namespace nightforge
