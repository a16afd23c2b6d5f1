#include "run.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <numeric>

namespace nightforge {

constexpr size_t kThreadgroupBytes = 32 << 10;
// Bytes of which every float is a NaN, and zeros: what a kernel makes of either must be the same.
constexpr int kGarbage[] = {0xff, 0x00, 0xff};

static thread_local Run* current_run = nullptr;
static thread_local std::vector<std::unique_ptr<Stack>> spare_stacks;

Run* Run::current() { return current_run; }

bool Wait::at_line_of(const Wait& other) const {
  return type == other.type && width == other.width && line == other.line &&
         std::strcmp(function, other.function) == 0 && std::strcmp(file, other.file) == 0;
}

Run::Run(const Launch& launch, Sanitizer& sanitizer, int order)
    : launch_(launch), sanitizer_(sanitizer), order_(order), threads_(kMaxThreads) {
  auto region = sanitizer.regions().begin();
  for (auto& argument : launch.arguments) pointers_.push_back((region++)->begin() + argument.skip);
}

std::vector<uint32_t> Run::ordered(uint32_t count) {
  std::vector<uint32_t> order(count);
  std::iota(order.begin(), order.end(), 0);
  if (order_ == 1) std::reverse(order.begin(), order.end());
  if (order_ == 2) std::shuffle(order.begin(), order.end(), random_);
  return order;
}

bool Run::execute() {
  current_run = this;
  uint32_t counts[3];
  for (int i = 0; i < 3; ++i) counts[i] = (launch_.grid[i] + launch_.threadgroup[i] - 1) / launch_.threadgroup[i];
  for (uint32_t index : ordered(counts[0] * counts[1] * counts[2])) {
    run_threadgroup(index % counts[0], index / counts[0] % counts[1], index / counts[0] / counts[1]);
    if (stopped_) break;
  }
  for (auto& thread : threads_)
    if (thread.stack) spare_stacks.push_back(std::move(thread.stack));
  current_run = nullptr;
  return !stopped_;
}

void Run::make_threads(const uint32_t (&position)[3]) {
  nf_thread self{};
  for (int i = 0; i < 3; ++i) {
    uint32_t size = launch_.threadgroup[i], start = position[i] * size;
    self.threadgroup_position_in_grid[i] = position[i];
    self.threads_per_threadgroup[i] = std::min(size, launch_.grid[i] - start);
    self.dispatch_threads_per_threadgroup[i] = size;
    self.threads_per_grid[i] = launch_.grid[i];
    self.threadgroups_per_grid[i] = (launch_.grid[i] + size - 1) / size;
  }
  auto& sizes = self.threads_per_threadgroup;
  live_ = sizes[0] * sizes[1] * sizes[2];
  for (uint32_t index = 0; index < live_; ++index) {
    const uint32_t inside[] = {index % sizes[0], index / sizes[0] % sizes[1], index / sizes[0] / sizes[1]};
    self.index_in_threadgroup = index;
    for (int i = 0; i < 3; ++i) {
      self.position_in_threadgroup[i] = inside[i];
      self.position_in_grid[i] = position[i] * launch_.threadgroup[i] + inside[i];
    }
    threads_[index].self = self;
    threads_[index].state = Thread::fresh;
  }
}

void Run::run_threadgroup(uint32_t x, uint32_t y, uint32_t z) {
  make_threads({x, y, z});
  uint32_t groups = (live_ + kLanes - 1) / kLanes;
  sanitizer_.begin_threadgroup(groups);
  for (auto& variable : shared_) variable.region->fill(kGarbage[order_]);
  do {
    advance(groups);
    if (stopped_) return;
  } while (release_barrier());
  sanitizer_.end_threadgroup();
}

uint32_t Run::lanes_of(uint32_t group) const { return std::min(kLanes, live_ - group * kLanes); }

// Runs all SIMD groups until each thread is done or waits at a barrier: in the first order in step, from one SIMD
// function to the next, as a GPU is likely to; in the others one SIMD group as far as it comes, then the next.
void Run::advance(uint32_t groups) {
  bool again = true;
  while (again) {
    again = false;
    for (uint32_t group : ordered(groups)) {
      bool more = step(group);
      while (more && order_ != 0) more = step(group);
      if (stopped_) return;
      again |= more;
    }
  }
}

// Runs the threads of a SIMD group that can run; true when they can go on afterwards.
bool Run::step(uint32_t group) {
  for (uint32_t lane : ordered(lanes_of(group))) {
    Thread& thread = threads_[group * kLanes + lane];
    if (thread.state == Thread::fresh || thread.state == Thread::ready) resume(thread);
    if (stopped_) return false;
  }
  return complete(group);
}

void Run::resume(Thread& thread) {
  if (thread.state == Thread::fresh) {
    if (!thread.stack && !spare_stacks.empty()) {
      thread.stack = std::move(spare_stacks.back());
      spare_stacks.pop_back();
    }
    if (!thread.stack) thread.stack = std::make_unique<Stack>();
    thread.context = first_context(*thread.stack, fiber_main);
  }
  running_ = &thread;
  sanitizer_.runs_on(thread.stack.get());
  nf_switch(&scheduler_, thread.context);
  sanitizer_.runs_on(nullptr);
}

// The body sees copies on its own stack, which no access needs to be judged for.
void Run::fiber_main() {
  Run& run = *current_run;
  nf_thread self = run.running_->self;
  void* buffers[64];
  std::copy(run.pointers_.begin(), run.pointers_.end(), buffers);
  run.running_->here = &self;
  run.launch_.body(buffers, &self);
  run.finish_thread();
}

void Run::finish_thread() {
  running_->state = Thread::done;
  // A stack is soon another thread's: most kernels then need no more than a few.
  spare_stacks.push_back(std::move(running_->stack));
  nf_switch(&running_->context, scheduler_);
}

void Run::block(Wait wait) {
  wait.frame = __builtin_frame_address(0);
  each_return(*running_->stack, wait.frame, [&](const void* address) {
    wait.path = (wait.path ^ reinterpret_cast<uintptr_t>(address)) * 0x9e3779b97f4a7c15;
  });
  Thread& thread = *running_;
  thread.state = Thread::waiting;
  thread.wait = wait;
  nf_switch(&thread.context, scheduler_);
}

void Run::abandon() {
  stopped_ = true;
  nf_switch(&running_->context, scheduler_);
  __builtin_unreachable();
}

// Whether two threads wait at one place: at the same line, called from the same lines. The addresses may differ all the
// same, because a compiler copies code where it unrolls a loop.
bool Run::meet(const Thread& a, const Thread& b) const {
  if (a.state != Thread::waiting || b.state != Thread::waiting || !a.wait.at_line_of(b.wait)) return false;
  if (a.wait.path == b.wait.path) return true;
  auto unknown = [](const SourceLine& line) { return line.line <= 0; };
  auto &first = call_sites(a), &second = call_sites(b);
  return first == second || std::any_of(first.begin(), first.end(), unknown) ||
         std::any_of(second.begin(), second.end(), unknown);
}

const std::vector<SourceLine>& Run::call_sites(const Thread& thread) const {
  return sanitizer_.call_sites(*thread.stack, thread.wait.frame, thread.wait.path);
}

// Lets the threads of a SIMD group go on whose exchange or barrier all of them have reached.
bool Run::complete(uint32_t group) {
  bool any = false;
  uint32_t first = group * kLanes, end = first + lanes_of(group);
  for (uint32_t i = first; i < end;) {
    auto& thread = threads_[i];
    bool waits = thread.state == Thread::waiting && thread.wait.type != Wait::barrier;
    uint32_t width = waits ? thread.wait.width : 4;
    uint32_t start = first + (i - first) / width * width;
    if (waits) any |= complete_around(start, width);
    i = start + width;
  }
  return any;
}

bool Run::complete_around(uint32_t first, uint32_t width) {
  uint32_t end = std::min(first + width, live_);
  const Wait& wait = threads_[first].wait;
  for (uint32_t i = first; i < end; ++i)
    if (!meet(threads_[i], threads_[first])) return false;
  if (wait.type == Wait::simd_barrier) sanitizer_.simd_barrier(first / kLanes, wait.flags);
  std::vector<char> values(width * wait.bytes, 0);
  for (uint32_t i = first; i < end && wait.bytes; ++i)
    std::memcpy(&values[(i - first) * wait.bytes], threads_[i].wait.value, wait.bytes);
  for (uint32_t i = first; i < end; ++i) {
    Thread& thread = threads_[i];
    if (wait.bytes) std::memcpy(thread.wait.all, values.data(), values.size());
    thread.wait.mask = end - first == 32 ? ~0u : (1u << (end - first)) - 1;
    thread.state = Thread::ready;
  }
  return true;
}

// True when every thread waited at the same barrier and now goes on; false at the end, or when that cannot be.
bool Run::release_barrier() {
  uint32_t done = 0;
  const Thread* first = nullptr;
  for (uint32_t i = 0; i < live_; ++i) {
    Thread& thread = threads_[i];
    if (thread.state == Thread::done) ++done;
    if (thread.state == Thread::waiting && thread.wait.type != Wait::barrier) {
      report_divergence(thread);
      return false;
    }
    if (thread.state == Thread::waiting && !first) first = &thread;
  }
  if (!first) return false;
  bool together = done == 0 && std::all_of(threads_.begin(), threads_.begin() + live_,
                                           [&](const Thread& t) { return meet(t, *first); });
  if (!together) {
    report_divergence(*first);
    return false;
  }
  sanitizer_.barrier(first->wait.flags);
  for (uint32_t i = 0; i < live_; ++i) threads_[i].state = Thread::ready;
  return true;
}

void Run::report_divergence(const Thread& waiting) {
  stopped_ = true;
  const Wait& wait = waiting.wait;
  bool barrier = wait.type == Wait::barrier;
  uint32_t width = barrier ? live_ : wait.width;
  uint32_t index = waiting.self.index_in_threadgroup;
  uint32_t first = barrier ? 0 : index / kLanes * kLanes + index % kLanes / width * width;
  uint32_t count = std::min(width, live_ - first);
  bool left = std::any_of(&threads_[first], &threads_[first] + count,
                          [](const Thread& t) { return t.state == Thread::done; });
  std::string kind = !barrier ? "divergent SIMD function" : left ? "left before barrier" : "divergent barrier";
  const char* scope = barrier ? "threadgroup" : width == kLanes ? "SIMD group" : "quad";
  std::string text = wait.function + called_from(waiting) + " is not reached by all " + std::to_string(count) +
                     " threads of the " + scope + ": " + others(waiting, first, count);
  sanitizer_.report(kind, text, {wait.file, wait.line});
}

// "" where the kernel itself waits, not a helper.
std::string Run::called_from(const Thread& thread) const {
  std::string text;
  for (auto& line : call_sites(thread))
    if (&line != &call_sites(thread).front()) text += ", called from " + line.file + ":" + std::to_string(line.line);
  return text;
}

std::string Run::others(const Thread& waiting, uint32_t first, uint32_t count) const {
  std::map<std::string, uint32_t> places;
  for (uint32_t i = first; i < first + count; ++i) {
    const Thread& thread = threads_[i];
    if (thread.state == Thread::done) ++places["have left the kernel"];
    if (thread.state != Thread::waiting || meet(thread, waiting)) continue;
    ++places[std::string("wait in ") + thread.wait.function + " (" + thread.wait.file + ":" +
             std::to_string(thread.wait.line) + called_from(thread) + ")"];
  }
  std::string text;
  for (auto& [place, number] : places) text += (text.empty() ? "" : ", ") + std::to_string(number) + " " + place;
  return text;
}

void* Run::shared(const void* key, const char* name, size_t bytes, const char* file, int line) {
  for (auto& variable : shared_)
    if (variable.key == key) return variable.region->begin();
  Region& region = sanitizer_.add(name, Role::threadgroup, bytes);
  region.fill(kGarbage[order_]);
  shared_.push_back({key, &region});
  shared_bytes_ += bytes;
  if (shared_bytes_ > kThreadgroupBytes) {
    sanitizer_.report("threadgroup memory",
                      "`" + std::string(name) + "` brings the threadgroup memory to " + std::to_string(shared_bytes_) +
                          " bytes; there are " + std::to_string(kThreadgroupBytes),
                      {file, line});
    abandon();
  }
  return region.begin();
}

}  // namespace nightforge
