// Barriers. A function that the sanitizer may name in a finding takes the caller's file and line as its last
// arguments, filled in by the compiler.
#pragma once

#include <cstdint>
#include <type_traits>

#include "emulator.h"

#define NF_CALLER const char *file = __builtin_FILE(), int line = __builtin_LINE()

// For functions that touch only what the calling thread owns, or that report their accesses themselves: the compiler
// puts no hooks into them. Two calls must not become one: where a thread waits is told by the call.
#ifdef __clang__
#define NF_UNSEEN __attribute__((no_sanitize_thread, nomerge)) inline
#else
#define NF_UNSEEN __attribute__((no_sanitize_thread)) inline
#endif

namespace metal {

template <class T>
using nf_same = std::type_identity_t<T>;  // an argument from which T is not deduced, so that it converts to T

enum class mem_flags : uint32_t {
  mem_none = 0,
  mem_device = 1,
  mem_threadgroup = 2,
  mem_texture = 4,
  mem_threadgroup_imageblock = 8,
};

constexpr mem_flags operator|(mem_flags a, mem_flags b) { return mem_flags(uint32_t(a) | uint32_t(b)); }
constexpr mem_flags operator&(mem_flags a, mem_flags b) { return mem_flags(uint32_t(a) & uint32_t(b)); }

NF_UNSEEN void threadgroup_barrier(mem_flags flags, NF_CALLER) { nf_barrier(uint32_t(flags), file, line); }
NF_UNSEEN void simdgroup_barrier(mem_flags flags, NF_CALLER) { nf_simd_barrier(uint32_t(flags), file, line); }

}  // namespace metal
