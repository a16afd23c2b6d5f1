#include "pool.h"

#include <algorithm>

namespace nightforge {

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
  Job job{task, tasks, std::min(threads, tasks) - 1};
  std::unique_lock lock(mutex_);
  int helpers = std::min<int>(job.seats, workers_.size());
  if (helpers > 0) {
    jobs_.push_back(&job);
    for (int i = 0; i < helpers; ++i) wake_.notify_one();
  }
  drain(job, lock);
  std::erase(jobs_, &job);
  job.finished.wait(lock, [&] { return job.running == 0; });
  if (job.error) std::rethrow_exception(job.error);
}

void Pool::work() {
  std::unique_lock lock(mutex_);
  while (true) {
    Job* job = nullptr;
    wake_.wait(lock, [&] { return stop_ || (job = open_job()); });
    if (stop_) return;
    --job->seats;
    drain(*job, lock);
  }
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
