// A launch of a translated Metal kernel on the emulator.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "emulator.h"
#include "memory.h"
#include "report.h"

namespace nightforge {

// One buffer argument. An input is copied from `in`; an output is copied to `out`, and starts as `in` says or, where
// that is null, as garbage that must be overwritten. The kernel gets a pointer `skip` bytes behind the first, whose
// address modulo 64 is `phase`: a view into a buffer need not be aligned.
struct Argument {
  std::string name;
  Role role;
  size_t bytes;
  size_t element;
  const void* in = nullptr;
  void* out = nullptr;
  size_t skip = 0;
  size_t phase = 0;
};

// `grid` counts threads, as mx.fast.metal_kernel does.
struct Launch {
  nf_body body;
  uint32_t grid[3];
  uint32_t threadgroup[3];
  std::vector<Argument> arguments;
};

// Runs the launch once in each of the first `orders` of three orders of its threads (forward, reverse, shuffled) and
// returns what the sanitizer found; the outputs are those of the first order. Ends early when something was found, and
// then fills the outputs with ones: NaNs.
std::vector<Finding> emulate(const Launch& launch, int orders);

// Runs the launch once; a finding is returned only where the run could not go on behind it.
std::vector<Finding> emulate_once(const Launch& launch);

constexpr int kOrders = 3;

}  // namespace nightforge
