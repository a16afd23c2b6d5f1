#include "launch.h"

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
                   "", 0);
  return false;
}

static void add_regions(const Launch& launch, Sanitizer& sanitizer) {
  for (auto& argument : launch.arguments) {
    Region& region = sanitizer.add(argument.name, argument.role, argument.bytes);
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

// Atomic additions of floats may come out different in each order, and rightly so.
static void compare_outputs(const Launch& launch, Sanitizer& sanitizer) {
  auto region = sanitizer.regions().begin();
  for (auto& argument : launch.arguments) {
    if (argument.out && !sanitizer.used_atomics() && std::memcmp(argument.out, region->begin(), argument.bytes) != 0)
      sanitizer.report("order dependence", "`" + argument.name + "` depends on the order in which threads run", "", 0);
    ++region;
  }
}

std::vector<Finding> emulate(const Launch& launch, int orders) {
  Sanitizer sanitizer(reinterpret_cast<const void*>(launch.body));
  if (!launchable(launch, sanitizer)) return sanitizer.findings();
  add_regions(launch, sanitizer);
  for (int order = 0; order < orders && sanitizer.findings().empty(); ++order) {
    fill_arguments(launch, sanitizer);
    sanitizer.begin_run();
    Run run(launch, sanitizer, order);
    run.execute();
    if (sanitizer.findings().empty()) report_unwritten(launch, sanitizer);
    if (order == 0) {
      keep_outputs(launch, sanitizer);
    } else if (sanitizer.findings().empty()) {
      compare_outputs(launch, sanitizer);
    }
    sanitizer.drop_threadgroup_memory();
  }
  return sanitizer.findings();
}

}  // namespace nightforge
