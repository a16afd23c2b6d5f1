#include "launch.h"

#include <algorithm>
#include <cstring>

#include "run.h"

namespace nightforge {

constexpr int kPoison = 0xff;

static bool launchable(const Launch& launch, Sanitizer& sanitizer) {
  uint64_t threads = 1ull * launch.threadgroup[0] * launch.threadgroup[1] * launch.threadgroup[2];
  if (threads >= 1 && threads <= kMaxThreads) return true;
  sanitizer.report("threadgroup size",
                   "a threadgroup of " + std::to_string(threads) + " threads; there may be 1 to " +
                       std::to_string(kMaxThreads),
                   {});
  return false;
}

// A threadgroup is never larger than the grid: MLX cuts it.
static Launch cut(const Launch& launch) {
  Launch result = launch;
  for (int i = 0; i < 3; ++i) result.threadgroup[i] = std::min(launch.threadgroup[i], std::max(launch.grid[i], 1u));
  return result;
}

static void add_regions(const Launch& launch, Sanitizer& sanitizer) {
  for (auto& argument : launch.arguments) {
    Region& region = sanitizer.add(argument.name, argument.role, argument.bytes, argument.phase);
    region.initialised = argument.in != nullptr;
  }
}

static void fill_arguments(const Launch& launch, Sanitizer& sanitizer) {
  auto region = sanitizer.regions().begin();
  for (auto& argument : launch.arguments) {
    if (argument.in) {
      std::memcpy(region->begin(), argument.in, argument.bytes);
    } else {
      region->fill(kPoison);
    }
    ++region;
  }
}

static void report_unwritten(const Launch& launch, Sanitizer& sanitizer) {
  auto region = sanitizer.regions().begin();
  for (auto& argument : launch.arguments) {
    if (argument.role == Role::output) sanitizer.report_unwritten(*region, argument.element);
    ++region;
  }
}

static void keep_outputs(const Launch& launch, Sanitizer& sanitizer) {
  auto region = sanitizer.regions().begin();
  for (auto& argument : launch.arguments) {
    if (argument.out) std::memcpy(argument.out, region->begin(), argument.bytes);
    ++region;
  }
}

// What a faulty kernel computed looks right too often: nobody shall go on with it.
static void spoil_outputs(const Launch& launch) {
  for (auto& argument : launch.arguments)
    if (argument.out) std::memset(argument.out, kPoison, argument.bytes);
}

// Atomic additions of floats may come out different in each order, and rightly so.
static void compare_outputs(const Launch& launch, Sanitizer& sanitizer) {
  auto region = sanitizer.regions().begin();
  for (auto& argument : launch.arguments) {
    if (argument.out && !sanitizer.used_atomics() && std::memcmp(argument.out, region->begin(), argument.bytes) != 0)
      sanitizer.report("order dependence", "`" + argument.name + "` depends on the order in which threads run", {});
    ++region;
  }
}

std::vector<Finding> emulate_once(const Launch& launch) {
  Sanitizer sanitizer(reinterpret_cast<const void*>(launch.body));
  if (!launchable(launch, sanitizer)) return sanitizer.findings();
  add_regions(launch, sanitizer);
  fill_arguments(launch, sanitizer);
  sanitizer.begin_run();
  Launch whole = cut(launch);
  Run run(whole, sanitizer, 0);
  bool finished = run.execute();
  keep_outputs(launch, sanitizer);
  if (finished) return {};
  spoil_outputs(launch);
  return sanitizer.findings();
}

std::vector<Finding> emulate(const Launch& launch, int orders) {
  Sanitizer sanitizer(reinterpret_cast<const void*>(launch.body));
  if (!launchable(launch, sanitizer)) return sanitizer.findings();
  Launch whole = cut(launch);
  add_regions(launch, sanitizer);
  for (int order = 0; order < orders && sanitizer.findings().empty(); ++order) {
    fill_arguments(launch, sanitizer);
    sanitizer.begin_run();
    Run run(whole, sanitizer, order);
    run.execute();
    if (sanitizer.findings().empty()) report_unwritten(launch, sanitizer);
    if (order == 0) {
      keep_outputs(launch, sanitizer);
    } else if (sanitizer.findings().empty()) {
      compare_outputs(launch, sanitizer);
    }
    sanitizer.drop_threadgroup_memory();
  }
  if (!sanitizer.findings().empty()) spoil_outputs(launch);
  return sanitizer.findings();
}

}  // namespace nightforge
