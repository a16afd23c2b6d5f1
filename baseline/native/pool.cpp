#include "pool.h"

#include <algorithm>
#include <chrono>

namespace nightforge {

// Longer than what MLX computes between two kernels of a token, and far shorter than a token.
constexpr auto kPatience = std::chrono::microseconds(200);

static void relax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("isb");  // `yield` takes no time there
#endif
}

// Waits, on a core of its own, until `done` or until patience ends.
template <class Done>
static void spin_until(Done done) {
  auto deadline = std::chrono::steady_clock::now() + kPatience;
  for (int turn = 1; !done(); ++turn) {
    relax();
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
  std::unique_lock lock(mutex_);
  int helpers = std::min<int>(job.seats, workers_.size());
  if (helpers > 0) {
    jobs_.push_back(&job);
    ++posted_;
    for (int i = looking_; i < helpers; ++i) wake_.notify_one();  // those that look see it by themselves
  }
  drain(job, lock);
  std::erase(jobs_, &job);
  if (job.running > 0) {
    lock.unlock();
    spin_until([&] { return job.running == 0; });
    lock.lock();
  }
  job.finished.wait(lock, [&] { return job.running == 0; });
  if (job.error) std::rethrow_exception(job.error);
}

void Pool::work() {
  std::unique_lock lock(mutex_);
  while (true) {
    Job* job = open_job();
    if (!job) look_for_work(lock);
    wake_.wait(lock, [&] { return stop_ || (job = open_job()); });
    if (stop_) return;
    --job->seats;
    drain(*job, lock);
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

// Runs tasks of `job` until none is left to begin. Called and left with the lock held; a job outlives its drainers,
// because `run` waits for running == 0.
void Pool::drain(Job& job, std::unique_lock<std::mutex>& lock) {
  ++job.running;
  while (job.next < job.tasks) {
    int index = job.next++;
    lock.unlock();
    std::exception_ptr error;
    try {
      job.task(index);
    } catch (...) {
      error = std::current_exception();
    }
    lock.lock();
    if (error && !job.error) {
      job.error = error;
      job.next = job.tasks;
    }
  }
  if (--job.running == 0) job.finished.notify_one();
}

}  // namespace nightforge
