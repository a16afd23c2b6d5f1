// The functions that a kernel's library calls: those of emulator.h, and those that the compiler's -fsanitize=thread
// and -fsanitize=bounds put around memory accesses. The sanitizer libraries that usually define the latter are not
// linked; the compiler's half alone is used.
#include <cstring>

#include "emulator.h"
#include "run.h"

using nightforge::Run;
using nightforge::Wait;

#define EXPORT extern "C" __attribute__((visibility("default")))

static void check(const void* address, size_t bytes, bool write, bool aligned, const void* pc) {
  Run* run = Run::current();
  if (!run) return;
  auto& thread = run->running();
  if (thread.stack->holds(address)) return;
  auto* at = static_cast<const char*>(pc) - 1;  // within the call, not behind it
  auto& sanitizer = run->sanitizer();
  if (aligned && reinterpret_cast<uintptr_t>(address) % bytes != 0) {
    sanitizer.misaligned(address, bytes, at);
    run->abandon();
  }
  if (!sanitizer.access(address, bytes, write, false, thread.self.index_in_threadgroup, at)) run->abandon();
}

#define HOOK(size)                                                                                             \
  EXPORT void __tsan_read##size(void* a) { check(a, size, false, true, __builtin_return_address(0)); }         \
  EXPORT void __tsan_write##size(void* a) { check(a, size, true, true, __builtin_return_address(0)); }         \
  EXPORT void __tsan_unaligned_read##size(void* a) { check(a, size, false, false, __builtin_return_address(0)); } \
  EXPORT void __tsan_unaligned_write##size(void* a) { check(a, size, true, false, __builtin_return_address(0)); } \
  EXPORT void __tsan_read_write##size(void* a) {                                                               \
    check(a, size, false, true, __builtin_return_address(0));                                                  \
    check(a, size, true, true, __builtin_return_address(0));                                                   \
  }                                                                                                            \
  EXPORT void __tsan_unaligned_read_write##size(void* a) {                                                     \
    check(a, size, false, false, __builtin_return_address(0));                                                 \
    check(a, size, true, false, __builtin_return_address(0));                                                  \
  }

HOOK(1)
HOOK(2)
HOOK(4)
HOOK(8)
HOOK(16)

EXPORT void __tsan_read_range(void* a, size_t bytes) { check(a, bytes, false, false, __builtin_return_address(0)); }
EXPORT void __tsan_write_range(void* a, size_t bytes) { check(a, bytes, true, false, __builtin_return_address(0)); }
EXPORT void __tsan_init() {}
EXPORT void __tsan_func_entry(void*) {}
EXPORT void __tsan_func_exit() {}
EXPORT void* __tsan_memset(void* a, int byte, size_t bytes) {
  check(a, bytes, true, false, __builtin_return_address(0));
  return std::memset(a, byte, bytes);
}
EXPORT void* __tsan_memcpy(void* to, const void* from, size_t bytes) {
  check(from, bytes, false, false, __builtin_return_address(0));
  check(to, bytes, true, false, __builtin_return_address(0));
  return std::memcpy(to, from, bytes);
}
EXPORT void* __tsan_memmove(void* to, const void* from, size_t bytes) {
  check(from, bytes, false, false, __builtin_return_address(0));
  check(to, bytes, true, false, __builtin_return_address(0));
  return std::memmove(to, from, bytes);
}

// What -fsanitize=bounds passes: where an array of which type was indexed. The layout is that of both compilers' UBSan.
struct TypeName {
  uint16_t kind, info;
  char text[1];
};
struct BoundsData {
  const char* file;
  uint32_t line, column;
  const TypeName* array;
};

static void index_out_of_bounds(const BoundsData* data, uintptr_t index, const void* pc) {
  Run* run = Run::current();
  if (!run) return;
  run->sanitizer().report_at("out of bounds",
                             "thread " + std::to_string(run->running().self.index_in_threadgroup) + " uses index " +
                                 std::to_string(static_cast<intptr_t>(index)) + " of an array " + data->array->text,
                             static_cast<const char*>(pc) - 1);
  run->abandon();
}

EXPORT void __ubsan_handle_out_of_bounds(const BoundsData* data, uintptr_t index) {
  index_out_of_bounds(data, index, __builtin_return_address(0));
}
EXPORT void __ubsan_handle_out_of_bounds_abort(const BoundsData* data, uintptr_t index) {
  index_out_of_bounds(data, index, __builtin_return_address(0));
}

// What -fsanitize=alignment passes. A vector is often read in parts, each of them aligned well enough for the hooks.
struct AlignmentData {
  const char* file;
  uint32_t line, column;
  const TypeName* type;
  unsigned char log_alignment, kind;
};

static void misaligned(const AlignmentData* data, const void* address, const void* pc) {
  Run* run = Run::current();
  if (!run) return;
  run->sanitizer().misaligned(address, size_t{1} << data->log_alignment, static_cast<const char*>(pc) - 1);
  run->abandon();
}

EXPORT void __ubsan_handle_type_mismatch_v1(const AlignmentData* data, const void* address) {
  misaligned(data, address, __builtin_return_address(0));
}
EXPORT void __ubsan_handle_type_mismatch_v1_abort(const AlignmentData* data, const void* address) {
  misaligned(data, address, __builtin_return_address(0));
}

// What -fsanitize=integer-divide-by-zero and, for the least integer by -1, -fsanitize=signed-integer-overflow find. A
// GPU computes something; most CPUs stop the process.
static void undefined_division(uintptr_t divisor, const void* pc) {
  Run* run = Run::current();
  if (!run) return;
  auto thread = "thread " + std::to_string(run->running().self.index_in_threadgroup);
  run->sanitizer().report_at("undefined division",
                             thread + (divisor == 0 ? " divides an integer by 0, or takes a remainder by it"
                                                    : " divides the least integer by -1, which overflows"),
                             static_cast<const char*>(pc) - 1);
  run->abandon();
}

EXPORT void __ubsan_handle_divrem_overflow(const void*, uintptr_t, uintptr_t divisor) {
  undefined_division(divisor, __builtin_return_address(0));
}
EXPORT void __ubsan_handle_divrem_overflow_abort(const void*, uintptr_t, uintptr_t divisor) {
  undefined_division(divisor, __builtin_return_address(0));
}

// Other overflows wrap around (-fwrapv), also where a compiler reports them all the same.
EXPORT void __ubsan_handle_add_overflow(const void*, uintptr_t, uintptr_t) {}
EXPORT void __ubsan_handle_sub_overflow(const void*, uintptr_t, uintptr_t) {}
EXPORT void __ubsan_handle_mul_overflow(const void*, uintptr_t, uintptr_t) {}
EXPORT void __ubsan_handle_negate_overflow(const void*, uintptr_t) {}

EXPORT const nf_thread* nf_self() { return Run::current()->running().here; }

EXPORT void nf_barrier(uint32_t flags, const char* file, int line) {
  Run::current()->block({Wait::barrier, nightforge::kMaxThreads, "threadgroup_barrier", file, line, flags});
}

EXPORT void nf_simd_barrier(uint32_t flags, const char* file, int line) {
  Run::current()->block({Wait::simd_barrier, nightforge::kLanes, "simdgroup_barrier", file, line, flags});
}

EXPORT uint32_t nf_exchange(const void* value, size_t bytes, void* all, int width, const char* function,
                            const char* file, int line) {
  Run& run = *Run::current();
  Wait wait{Wait::exchange, static_cast<uint32_t>(width), function, file, line};
  wait.value = value;
  wait.bytes = bytes;
  wait.all = static_cast<char*>(all);
  run.block(wait);
  return run.running().wait.mask;
}

EXPORT void* nf_shared(const void* key, const char* name, size_t bytes, const char* file, int line) {
  return Run::current()->shared(key, name, bytes, file, line);
}

static void check_atomic(const void* address, size_t bytes, bool write, const void* pc) {
  Run& run = *Run::current();
  auto& thread = run.running();
  if (thread.stack->holds(address)) return;
  auto* at = static_cast<const char*>(pc) - 1;
  if (!run.sanitizer().access(address, bytes, write, true, thread.self.index_in_threadgroup, at)) run.abandon();
}

EXPORT void nf_atomic_read(const void* address, void* value, size_t bytes) {
  check_atomic(address, bytes, false, __builtin_return_address(0));
  std::memcpy(value, address, bytes);
}

EXPORT void nf_atomic_write(void* address, const void* value, size_t bytes) {
  check_atomic(address, bytes, true, __builtin_return_address(0));
  std::memcpy(address, value, bytes);
}
