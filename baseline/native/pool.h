// A persistent pool of threads that both primitives share. Threads are started by `reserve`, never by `run`, so
// that none is started in a token's path; idle ones are parked on a condition variable. Within a token the next job
// comes after some microseconds, and waking a parked thread takes more than that on a virtual machine: a thread looks
// for work a little longer before it parks.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace nightforge {

class Pool {
 public:
  static Pool& shared();

  // Makes sure that a `run` can use `threads` threads, the caller's among them. The pool never shrinks.
  void reserve(int threads);
  int size();

  // Calls task(0) ... task(tasks - 1) on at most `threads` threads (the caller is one of them) and returns when all
  // are done. The first exception of a task is rethrown; tasks that nobody has begun by then are dropped.
  void run(int tasks, int threads, const std::function<void(int)>& task);

 private:
  struct Job {
    const std::function<void(int)>& task;
    int tasks;
    int seats;  // workers that may still join
    std::atomic<int> next{0};
    std::atomic<int> running{0};  // workers that have joined and not left
    bool posted = false;
    std::exception_ptr error;
  };

  Pool() = default;
  ~Pool();
  void work();
  void look_for_work(std::unique_lock<std::mutex>& lock);
  void post(Job& job);
  void retire(Job& job);
  void drain(Job& job);
  Job* open_job();

  std::mutex mutex_;
  std::condition_variable wake_, finished_;
  std::deque<Job*> jobs_;
  std::vector<std::thread> workers_;
  std::atomic<int> posted_{0};   // jobs, ever
  std::atomic<int> waiting_{0};  // callers of `run` that sleep until their job is finished
  int looking_ = 0;             // workers that look for work, and keep a core busy with it
  bool stop_ = false;
};

}  // namespace nightforge
