// Judges every access of a kernel to memory: is it inside a buffer, was it written before, does a barrier lie between
// it and another thread's?
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <vector>

#include "fiber.h"
#include "memory.h"
#include "report.h"

namespace nightforge {

// mem_flags of MSL that order the two kinds of memory.
enum Space { kDevice = 0, kThreadgroup = 1 };

class Sanitizer {
 public:
  explicit Sanitizer(const void* code);

  Region& add(std::string name, Role role, size_t bytes, size_t phase = 0);
  std::deque<Region>& regions() { return regions_; }
  Region* find(const void* address);
  void drop_threadgroup_memory();  // its regions; the buffers stay

  // The stack that the kernel runs on: what is called from where is read off it.
  void runs_on(const Stack* stack) { stack_ = stack; }

  // The clock of barriers. A threadgroup's `flags` are mem_flags.
  void begin_run();
  void begin_threadgroup(uint32_t simd_groups);
  void end_threadgroup();
  void barrier(uint32_t flags);
  void simd_barrier(uint32_t group, uint32_t flags);

  // An access of thread `thread` from the instruction at `pc`. False when it must not happen.
  bool access(const void* address, size_t bytes, bool write, bool atomic, uint32_t thread, const void* pc);
  void misaligned(const void* address, size_t alignment, const void* pc);

  void report(std::string kind, std::string text, const SourceLine& at);
  void report_at(std::string kind, std::string text, const void* pc);
  void report_unwritten(const Region& region, size_t element);

  // The lines of the calls that led to the function with `frame`, innermost first; `path` is their addresses' hash.
  const std::vector<SourceLine>& call_sites(const Stack& stack, const void* frame, uint64_t path);

  bool used_atomics() const { return used_atomics_; }
  const std::vector<Finding>& findings() const { return findings_; }

 private:
  struct Uninitialised {
    Region* region;
    size_t offset;
    uint32_t thread, pc;
    Place place;
  };

  struct Access {
    const char* verb;
    uint32_t who, time, pc;
  };

  struct Rewritten {  // a byte that was written twice, and what it held before the second time
    Region* region;
    size_t offset;
    char old;
    Access then, now;
  };

  void settle();
  void out_of_bounds(const void* address, size_t bytes, bool write, uint32_t thread, const void* pc);
  Place place(const void* pc) const;
  void add_callers(const Stack& stack, const void* frame, Place& place) const;
  bool in_code(const void* address) const;
  void uninitialised(Region& region, size_t offset, uint32_t thread, uint32_t pc);
  void read_byte(Region& region, Cell& cell, size_t offset, bool atomic, uint32_t thread, uint32_t pc);
  void write_byte(Region& region, Cell& cell, size_t offset, bool atomic, uint32_t thread, uint32_t pc);
  bool before(const Region& region, uint32_t time, uint32_t other, uint32_t thread) const;
  void race(Region& region, size_t offset, const Access& then, const Access& now);
  bool seen(const std::string& kind, const void* where, uint32_t pc);

  const char* code_;  // where the kernel's library was loaded: a pc is an offset from here
  const char* code_end_;
  std::deque<Region> regions_;
  Region* last_[16] = {};  // found at an address of this hash
  const Stack* stack_ = nullptr;
  uint32_t now_ = 0;
  uint32_t threadgroup_start_ = 0;
  uint32_t barrier_time_[2] = {0, 0};
  std::vector<uint32_t> simd_time_[2];
  bool used_atomics_ = false;
  std::vector<Uninitialised> uninitialised_;
  std::vector<Rewritten> rewritten_;
  std::vector<const Region*> raced_;
  std::vector<std::pair<SourceLine, SourceLine>> races_;
  struct Seen {
    std::string kind;
    const void* where;
    uint32_t pc;
  };
  std::vector<Seen> seen_;
  std::map<uint64_t, std::vector<SourceLine>> call_sites_;
  std::vector<Finding> findings_;
};

}  // namespace nightforge
