// One run of a launch: the threads of a threadgroup as fibers, one threadgroup after the other.
#pragma once

#include <memory>
#include <random>
#include <vector>

#include "fiber.h"
#include "launch.h"
#include "sanitizer.h"

namespace nightforge {

constexpr uint32_t kLanes = 32;
constexpr uint32_t kMaxThreads = 1024;

// What a stopped thread waits for.
struct Wait {
  enum Type { exchange, simd_barrier, barrier } type;
  uint32_t width;  // of the group that must arrive: a quad, a SIMD group, a threadgroup
  const char* function;
  const char* file;
  int line;
  uint32_t flags = 0;
  const void* value = nullptr;
  size_t bytes = 0;
  char* all = nullptr;
  uint32_t mask = 0;
  const void* frame = nullptr;  // that of the call which waits
  uint64_t path = 0;            // a hash of the addresses of all calls that led there

  bool at_line_of(const Wait& other) const;
};

struct Thread {
  enum State { fresh, ready, waiting, done } state = fresh;
  nf_thread self;
  const nf_thread* here = nullptr;  // a copy on the thread's own stack
  std::unique_ptr<Stack> stack;
  void* context = nullptr;
  Wait wait{};
};

class Run {
 public:
  Run(const Launch& launch, Sanitizer& sanitizer, int order);
  bool execute();  // whether every thread came to its end

  static Run* current();
  Thread& running() { return *running_; }
  Sanitizer& sanitizer() { return sanitizer_; }
  void block(Wait wait);       // the running thread stops until the others it waits for have arrived
  [[noreturn]] void abandon();  // the running thread stops for good, and the run with it
  void* shared(const void* key, const char* name, size_t bytes, const char* file, int line);

 private:
  struct Shared {
    const void* key;
    Region* region;
  };

  static void fiber_main();
  void run_threadgroup(uint32_t x, uint32_t y, uint32_t z);
  void make_threads(const uint32_t (&position)[3]);
  void finish_thread();
  void resume(Thread& thread);
  void advance(uint32_t groups);
  bool step(uint32_t group);
  bool meet(const Thread& a, const Thread& b) const;
  const std::vector<SourceLine>& call_sites(const Thread& thread) const;
  std::string called_from(const Thread& thread) const;
  bool complete(uint32_t group);
  bool complete_around(uint32_t first, uint32_t width);
  bool release_barrier();
  void report_divergence(const Thread& waiting);
  std::string others(const Thread& waiting, uint32_t first, uint32_t count) const;
  std::vector<uint32_t> ordered(uint32_t count);
  uint32_t lanes_of(uint32_t group) const;

  const Launch& launch_;
  Sanitizer& sanitizer_;
  int order_;
  std::mt19937 random_{1};
  std::vector<void*> pointers_;
  std::vector<Thread> threads_;
  uint32_t live_ = 0;  // threads of this threadgroup: threads_[0, live_)
  std::vector<Shared> shared_;
  size_t shared_bytes_ = 0;
  Thread* running_ = nullptr;
  void* scheduler_ = nullptr;
  bool stopped_ = false;
};

}  // namespace nightforge
