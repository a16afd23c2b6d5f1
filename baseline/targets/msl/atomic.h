// Atomics. Every access goes to the runtime, which then knows it for an atomic one; a plain access to the same address
// stays a race. All is inlined, so that the access is one of the kernel's line. Each function exists for the types for
// which Metal has it.
#pragma once

#include "sync.h"
#include "types.h"

namespace metal {

enum memory_order {
  memory_order_relaxed,
  memory_order_acquire,
  memory_order_release,
  memory_order_acq_rel,
  memory_order_seq_cst,
};

enum thread_scope {
  thread_scope_thread,
  thread_scope_simdgroup,
  thread_scope_threadgroup,
  thread_scope_device,
};

template <class T>
constexpr bool nf_is_atomic = std::is_same_v<T, int32_t> || std::is_same_v<T, uint32_t> || std::is_same_v<T, bool> ||
                              std::is_same_v<T, float> || (std::is_unsigned_v<T> && sizeof(T) == 8);

// The integers whose fetch functions Metal has: 64-bit ones know only atomic_min_explicit and atomic_max_explicit.
template <class T>
constexpr bool nf_is_atomic_int = std::is_same_v<T, int32_t> || std::is_same_v<T, uint32_t>;

template <class T>
struct atomic {
  static_assert(nf_is_atomic<T>, "atomic<T>: T is int, uint, bool, ulong or float");
  atomic() = default;
  atomic(const atomic&) = delete;
  atomic& operator=(const atomic&) = delete;

  T nf_value;  // touched only by the functions below
};

using atomic_int = atomic<int32_t>;
using atomic_uint = atomic<uint32_t>;
using atomic_bool = atomic<bool>;
using atomic_ulong = atomic<uint64_t>;
using atomic_float = atomic<float>;

template <class T>
NF_FN T atomic_load_explicit(const volatile atomic<T>* object, memory_order) {
  T value;
  nf_atomic_read(const_cast<const T*>(&object->nf_value), &value, sizeof(T));
  return value;
}

template <class T>
NF_FN void atomic_store_explicit(volatile atomic<T>* object, nf_same<T> value, memory_order) {
  nf_atomic_write(const_cast<T*>(&object->nf_value), &value, sizeof(T));
}

// Replaces the value by change(value); returns the value before.
template <class T, class Change>
NF_FN T nf_atomic_change(volatile atomic<T>* object, memory_order order, Change change) {
  const T before = atomic_load_explicit(object, order);
  atomic_store_explicit(object, change(before), order);
  return before;
}

template <class T>
NF_FN T atomic_exchange_explicit(volatile atomic<T>* object, nf_same<T> value, memory_order order) {
  return nf_atomic_change(object, order, [=](T) { return value; });
}

// Never fails spuriously, which Metal allows but does not ask for. Floats compare by their bytes, as on the GPU.
template <class T>
NF_FN bool atomic_compare_exchange_weak_explicit(volatile atomic<T>* object, nf_same<T>* expected, nf_same<T> value,
                                                 memory_order success, memory_order failure) {
  const T before = atomic_load_explicit(object, failure);
  if (__builtin_memcmp(&before, expected, sizeof(T)) != 0) {
    *expected = before;
    return false;
  }
  atomic_store_explicit(object, value, success);
  return true;
}

// Where sums wrap around, as they do on the GPU: signed arithmetic in C++ does not define that.
template <class T>
using nf_wrapping = std::conditional_t<std::is_integral_v<T>, uint32_t, T>;

template <class T>
  requires(nf_is_atomic_int<T> || std::is_same_v<T, float>)
NF_FN T atomic_fetch_add_explicit(volatile atomic<T>* object, nf_same<T> value, memory_order order) {
  return nf_atomic_change(object, order, [=](nf_wrapping<T> before) { return T(before + nf_wrapping<T>(value)); });
}

template <class T>
  requires(nf_is_atomic_int<T> || std::is_same_v<T, float>)
NF_FN T atomic_fetch_sub_explicit(volatile atomic<T>* object, nf_same<T> value, memory_order order) {
  return nf_atomic_change(object, order, [=](nf_wrapping<T> before) { return T(before - nf_wrapping<T>(value)); });
}

template <class T>
  requires nf_is_atomic_int<T>
NF_FN T atomic_fetch_and_explicit(volatile atomic<T>* object, nf_same<T> value, memory_order order) {
  return nf_atomic_change(object, order, [=](T before) { return before & value; });
}

template <class T>
  requires nf_is_atomic_int<T>
NF_FN T atomic_fetch_or_explicit(volatile atomic<T>* object, nf_same<T> value, memory_order order) {
  return nf_atomic_change(object, order, [=](T before) { return before | value; });
}

template <class T>
  requires nf_is_atomic_int<T>
NF_FN T atomic_fetch_xor_explicit(volatile atomic<T>* object, nf_same<T> value, memory_order order) {
  return nf_atomic_change(object, order, [=](T before) { return before ^ value; });
}

template <class T>
  requires nf_is_atomic_int<T>
NF_FN T atomic_fetch_min_explicit(volatile atomic<T>* object, nf_same<T> value, memory_order order) {
  return nf_atomic_change(object, order, [=](T before) { return value < before ? value : before; });
}

template <class T>
  requires nf_is_atomic_int<T>
NF_FN T atomic_fetch_max_explicit(volatile atomic<T>* object, nf_same<T> value, memory_order order) {
  return nf_atomic_change(object, order, [=](T before) { return before < value ? value : before; });
}

NF_FN void atomic_min_explicit(volatile atomic_ulong* object, uint64_t value, memory_order order) {
  nf_atomic_change(object, order, [=](uint64_t before) { return value < before ? value : before; });
}

NF_FN void atomic_max_explicit(volatile atomic_ulong* object, uint64_t value, memory_order order) {
  nf_atomic_change(object, order, [=](uint64_t before) { return before < value ? value : before; });
}

// Threads run one at a time, so nothing is left to order. The race detection knows barriers only: data handed from one
// threadgroup to another by a fence and a flag is reported.
NF_FN void atomic_thread_fence(mem_flags, memory_order, thread_scope = thread_scope_device) {}

}  // namespace metal
