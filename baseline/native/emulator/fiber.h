// Fibers: functions that stop in the middle and go on later, each on a stack of its own. One Metal thread is one fiber.
#pragma once

#include <cstddef>
#include <vector>

namespace nightforge {

constexpr size_t kStackBytes = 256 << 10;

class Stack {
 public:
  Stack();
  ~Stack();
  Stack(const Stack&) = delete;
  Stack& operator=(const Stack&) = delete;

  char* low() const { return low_; }
  bool holds(const void* address) const {
    return static_cast<size_t>(static_cast<const char*>(address) - low_) < kStackBytes;
  }

 private:
  char* low_;
};

// Calls f with each address to which a function on `stack` returns, outwards from the one whose frame is `frame`.
template <class F>
void each_return(const Stack& stack, const void* frame, F f) {
  auto* at = static_cast<const void* const*>(frame);
  while (stack.holds(at)) {
    f(at[1]);
    if (at[0] <= at) break;
    at = static_cast<const void* const*>(at[0]);
  }
}

// Runs `entry`, which never returns, on `stack` from its first instruction at the next switch_to.
void* first_context(const Stack& stack, void (*entry)());

// Stores where the caller is in `*from` and goes on at `to`.
extern "C" void nf_switch(void** from, void* to);

}  // namespace nightforge
