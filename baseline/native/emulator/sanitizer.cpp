#include "sanitizer.h"

#include <dlfcn.h>
#if defined(__linux__)
#include <link.h>
#endif

#include <algorithm>
#include <utility>

namespace nightforge {

constexpr size_t kMostFindings = 16;
constexpr uint32_t kFlagDevice = 1, kFlagThreadgroup = 2;
// Who accessed a byte last: a thread of the threadgroup, several of one SIMD group, of several, or an atomic access.
constexpr uint16_t kSeveralOfGroup = 0x4000, kSeveral = 0xffff, kAtomic = 0xfffe;

static Space space_of(const Region& region) { return region.role() == Role::threadgroup ? kThreadgroup : kDevice; }

static uint32_t group_of(uint32_t who) { return who & kSeveralOfGroup ? who & 0x3fff : who / 32; }

static std::string name_of(uint32_t who) {
  if (who == kAtomic) return "an atomic access";
  if (who == kSeveral) return "other threads";
  if (who & kSeveralOfGroup) return "threads of SIMD group " + std::to_string(who & 0x3fff);
  return "thread " + std::to_string(who);
}

#if defined(__linux__)
struct Extent {
  const char* base;
  const char* end;
};

static int add_segments(dl_phdr_info* info, size_t, void* data) {
  auto* extent = static_cast<Extent*>(data);
  if (reinterpret_cast<const char*>(info->dlpi_addr) != extent->base) return 0;
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    auto& header = info->dlpi_phdr[i];
    if (header.p_type == PT_LOAD) extent->end = std::max(extent->end, extent->base + header.p_vaddr + header.p_memsz);
  }
  return 1;
}
#endif

Sanitizer::Sanitizer(const void* code) {
  Dl_info library{};
  dladdr(code, &library);
  code_ = code_end_ = static_cast<const char*>(library.dli_fbase);
#if defined(__linux__)
  Extent extent{code_, code_};
  dl_iterate_phdr(add_segments, &extent);
  code_end_ = extent.end;
#endif
}

// Constant tables lie in the library.
bool Sanitizer::in_code(const void* address) const {
#if defined(__linux__)
  return address >= code_ && address < code_end_;
#else
  Dl_info library{};
  return dladdr(address, &library) && library.dli_fbase == code_;
#endif
}

Region& Sanitizer::add(std::string name, Role role, size_t bytes, size_t phase) {
  return regions_.emplace_back(std::move(name), role, bytes, phase);
}

// Regions lie tens of megabytes apart, so that the address's upper bits tell most of them from each other.
Region* Sanitizer::find(const void* address) {
  Region*& last = last_[reinterpret_cast<uintptr_t>(address) >> 25 & 15];
  if (last && last->holds(address)) return last;
  for (auto& region : regions_)
    if (region.holds(address)) return last = &region;
  return nullptr;
}

void Sanitizer::drop_threadgroup_memory() {
  while (!regions_.empty() && regions_.back().role() == Role::threadgroup) regions_.pop_back();
  std::fill(std::begin(last_), std::end(last_), nullptr);
}

void Sanitizer::begin_run() {
  now_ = 0;
  for (auto& region : regions_) region.forget();
}

void Sanitizer::begin_threadgroup(uint32_t simd_groups) {
  threadgroup_start_ = ++now_;
  for (auto space : {kDevice, kThreadgroup}) {
    barrier_time_[space] = now_;
    simd_time_[space].assign(simd_groups, now_);
  }
  raced_.clear();
}

void Sanitizer::end_threadgroup() {
  settle();
  for (auto& read : uninitialised_) {
    if (std::find(raced_.begin(), raced_.end(), read.region) != raced_.end()) continue;
    auto what = read.region->role() == Role::threadgroup ? "threadgroup memory" : "an output";
    if (seen("uninitialised read", read.region, read.pc)) continue;
    report("uninitialised read",
           "thread " + std::to_string(read.thread) + " reads byte " + std::to_string(read.offset) + " of `" +
               read.region->name() + "`, " + what + " that no thread has written",
           source_line(read.place));
  }
  uninitialised_.clear();
}

void Sanitizer::barrier(uint32_t flags) {
  settle();
  ++now_;
  if (flags & kFlagDevice) barrier_time_[kDevice] = now_;
  if (flags & kFlagThreadgroup) barrier_time_[kThreadgroup] = now_;
}

void Sanitizer::simd_barrier(uint32_t group, uint32_t flags) {
  settle();
  ++now_;
  if (flags & kFlagDevice) simd_time_[kDevice][group] = now_;
  if (flags & kFlagThreadgroup) simd_time_[kThreadgroup][group] = now_;
}

bool Sanitizer::access(const void* address, size_t bytes, bool write, bool atomic, uint32_t thread, const void* pc) {
  settle();
  Region* region = find(address);
  if (!region || region->offset(address) + bytes > region->bytes()) {
    if (!write && in_code(address)) return true;
    out_of_bounds(address, bytes, write, thread, pc);
    return false;
  }
  auto at = static_cast<uint32_t>(static_cast<const char*>(pc) - code_);
  used_atomics_ |= atomic;
  if (region->role() == Role::input) {
    if (write && !seen("input written", region, at))
      report_at("input written",
                "thread " + std::to_string(thread) + " writes to the input `" + region->name() + "`", pc);
    return true;
  }
  Cell* cells = &region->cell(address);
  size_t offset = region->offset(address);
  for (size_t i = 0; i < bytes; ++i) {
    if (write) {
      write_byte(*region, cells[i], offset + i, atomic, thread, at);
    } else {
      read_byte(*region, cells[i], offset + i, atomic, thread, at);
    }
  }
  return true;
}

// Whether what `other` did at `time` lies before what `thread` does now, as far as memory is concerned.
bool Sanitizer::before(const Region& region, uint32_t time, uint32_t other, uint32_t thread) const {
  auto space = space_of(region);
  if (time < threadgroup_start_) return space == kThreadgroup;  // no barrier orders two threadgroups
  if (time < barrier_time_[space] || other == thread) return true;
  if (other >= kAtomic) return false;
  uint32_t group = thread / 32;
  return group_of(other) == group && time < simd_time_[space][group];
}

// Reported when the threadgroup ends: where a race explains it, the race is the finding.
void Sanitizer::uninitialised(Region& region, size_t offset, uint32_t thread, uint32_t pc) {
  bool known = std::any_of(uninitialised_.begin(), uninitialised_.end(),
                           [&](const Uninitialised& old) { return old.region == &region && old.pc == pc; });
  if (!known && uninitialised_.size() < kMostFindings)
    uninitialised_.push_back({&region, offset, thread, pc, place(code_ + pc)});
}

void Sanitizer::read_byte(Region& region, Cell& cell, size_t offset, bool atomic, uint32_t thread, uint32_t pc) {
  bool stale = space_of(region) == kThreadgroup && cell.write_time < threadgroup_start_;
  if ((cell.write_time == 0 && !region.initialised) || stale) {
    uninitialised(region, offset, thread, pc);
  } else if (cell.write_time != 0 && !(atomic && cell.writer == kAtomic) &&
             !before(region, cell.write_time, cell.writer, thread)) {
    race(region, offset, {"written", cell.writer, cell.write_time, cell.write_pc}, {"read", thread, now_, pc});
  }
  auto me = static_cast<uint16_t>(atomic ? kAtomic : thread);
  if (cell.read_time != 0 && cell.reader != me && !before(region, cell.read_time, cell.reader, thread)) {
    bool one_group = cell.reader < kAtomic && !atomic && group_of(cell.reader) == thread / 32;
    me = one_group ? kSeveralOfGroup | thread / 32 : kSeveral;
  }
  // Of a plain and an atomic read, the plain one is what an atomic write races with.
  if (!atomic || me == kAtomic) cell.read_pc = pc;
  cell.reader = me;
  cell.read_time = now_;
}

void Sanitizer::write_byte(Region& region, Cell& cell, size_t offset, bool atomic, uint32_t thread, uint32_t pc) {
  bool both_atomic = atomic && cell.writer == kAtomic;
  if (cell.write_time != 0 && !both_atomic && !before(region, cell.write_time, cell.writer, thread))
    rewritten_.push_back({&region, offset, region.begin()[offset],
                          {"written", cell.writer, cell.write_time, cell.write_pc}, {"written", thread, now_, pc}});
  bool atomic_reader = atomic && cell.reader == kAtomic;
  if (cell.read_time != 0 && !atomic_reader && !before(region, cell.read_time, cell.reader, thread))
    race(region, offset, {"read", cell.reader, cell.read_time, cell.read_pc}, {"written", thread, now_, pc});
  cell.writer = static_cast<uint16_t>(atomic ? kAtomic : thread);
  cell.write_time = now_;
  cell.write_pc = pc;
}

// Two threads may well write the same value: it is one race that no order can decide. What was written shows only after
// the instruction.
void Sanitizer::settle() {
  const Stack* stack = std::exchange(stack_, nullptr);  // it may have moved on
  for (auto& write : rewritten_)
    if (write.region->begin()[write.offset] != write.old) race(*write.region, write.offset, write.then, write.now);
  rewritten_.clear();
  stack_ = stack;
}

void Sanitizer::race(Region& region, size_t offset, const Access& then, const Access& now) {
  if (std::find(raced_.begin(), raced_.end(), &region) == raced_.end()) raced_.push_back(&region);
  if (seen("race", &region, now.pc)) return;
  auto first = source_line({code_ + then.pc}), second = source_line(place(code_ + now.pc));
  // Each of two lines may come first; the pair is reported once.
  if (std::find(races_.begin(), races_.end(), std::pair(second, first)) != races_.end()) return;
  races_.emplace_back(first, second);
  auto where = first.line ? " (" + first.file + ":" + std::to_string(first.line) + ")" : "";
  auto flag = space_of(region) == kThreadgroup ? "mem_threadgroup" : "mem_device";
  bool elsewhere = then.time < threadgroup_start_;
  report("race",
         "byte " + std::to_string(offset) + " of `" + region.name() + "` is " + then.verb + " by " + name_of(then.who) +
             (elsewhere ? " of another threadgroup" : "") + where + " and " + now.verb + " by " + name_of(now.who) +
             (elsewhere ? ", which nothing orders" : std::string(" without a barrier for ") + flag + " between them"),
         second);
}

// The instruction at `pc` and those that called its function, innermost first.
Place Sanitizer::place(const void* pc) const {
  Place found{pc};
  if (stack_) add_callers(*stack_, __builtin_frame_address(0), found);
  return found;
}

void Sanitizer::add_callers(const Stack& stack, const void* frame, Place& place) const {
  each_return(stack, frame, [&](const void* address) {
    auto* caller = static_cast<const char*>(address) - 1;
    bool known = !place.empty() && place.front() == caller;
    if (!known && in_code(caller)) place.push_back(caller);
  });
}

const std::vector<SourceLine>& Sanitizer::call_sites(const Stack& stack, const void* frame, uint64_t path) {
  auto [found, fresh] = call_sites_.try_emplace(path);
  if (fresh) {
    Place place;
    add_callers(stack, frame, place);
    found->second = source_lines(place);
  }
  return found->second;
}

void Sanitizer::out_of_bounds(const void* address, size_t bytes, bool write, uint32_t thread, const void* pc) {
  auto nearer = [&](const Region& a, const Region& b) { return a.distance(address) < b.distance(address); };
  auto nearest = std::min_element(regions_.begin(), regions_.end(), nearer);
  std::string text = "thread " + std::to_string(thread) + (write ? " writes " : " reads ") + std::to_string(bytes) +
                     " bytes ";
  if (nearest == regions_.end()) {
    text += "of no buffer";
  } else {
    auto offset = static_cast<const char*>(address) - nearest->begin();
    text += "at byte " + std::to_string(offset) + " of `" + nearest->name() + "`, which has " +
            std::to_string(nearest->bytes());
    if (nearest->distance(address) > kGuard) text += "; no buffer is near";
  }
  report_at("out of bounds", text, pc);
}

void Sanitizer::misaligned(const void* address, size_t alignment, const void* pc) {
  Region* region = find(address);
  report_at("misaligned",
            "accesses what is aligned to " + std::to_string(alignment) + " bytes" +
                (region ? " at byte " + std::to_string(region->offset(address)) + " of `" + region->name() + "`" : "") +
                ", at an address that is no multiple of " + std::to_string(alignment),
            pc);
}

bool Sanitizer::seen(const std::string& kind, const void* where, uint32_t pc) {
  for (auto& old : seen_)
    if (old.kind == kind && old.where == where && old.pc == pc) return true;
  seen_.push_back({kind, where, pc});
  return false;
}

void Sanitizer::report(std::string kind, std::string text, const SourceLine& at) {
  Finding finding{std::move(kind), std::move(text), at.file, at.line};
  bool known = std::any_of(findings_.begin(), findings_.end(), [&](const Finding& old) {
    return old.kind == finding.kind && old.file == finding.file && old.line == finding.line;
  });
  if (!known && findings_.size() < kMostFindings) findings_.push_back(std::move(finding));
}

void Sanitizer::report_at(std::string kind, std::string text, const void* pc) {
  report(std::move(kind), std::move(text), source_line(place(pc)));
}

void Sanitizer::report_unwritten(const Region& region, size_t element) {
  if (region.initialised) return;
  auto& cells = region.cells();
  size_t first = cells.size(), count = 0;
  for (size_t i = 0; i < cells.size(); i += element) {
    bool written = std::all_of(&cells[i], &cells[i] + element, [](const Cell& c) { return c.write_time != 0; });
    if (written) continue;
    first = std::min(first, i / element);
    ++count;
  }
  if (count == 0) return;
  report("unwritten output",
         std::to_string(count) + " of " + std::to_string(cells.size() / element) + " elements of `" + region.name() +
             "` are never written, the first of them element " + std::to_string(first),
         {});
}

}  // namespace nightforge
