// SIMD-group functions (32 lanes) and their quad twins (4 lanes). Each is one exchange: every lane gets the values of
// all and works out its own result. Lanes that do not exist, at the end of a threadgroup that is no multiple of 32,
// take no part in a reduction; to read from one gives zero.
#pragma once

#include <cstddef>
#include <type_traits>

#include "sync.h"
#include "types.h"
#include "vector.h"

namespace metal {

// What the threads of a SIMD group (Width 32) or quad (Width 4) gave, by lane.
template <class T, int Width>
struct nf_lanes {
  alignas(T) unsigned char values[Width * sizeof(T)];
  uint32_t existing;
  int self;

  NF_UNSEEN nf_lanes(const T& value, const char* function, const char* file, int line)
    : existing(nf_exchange(&value, sizeof(T), values, Width, function, file, line)),
          self(int(nf_self()->index_in_threadgroup % Width)) {}

  NF_UNSEEN bool exists(int lane) const { return existing >> lane & 1; }

  NF_UNSEEN T operator[](int lane) const {
    return lane >= 0 && lane < Width ? reinterpret_cast<const T*>(values)[lane] : T{};
  }
};

// The lanes of this thread's SIMD group or quad that exist.
template <int Width>
NF_UNSEEN uint32_t nf_existing_lanes() {
  const nf_thread& self = *nf_self();
  const uint32_t* extent = self.threads_per_threadgroup;
  const uint32_t begin = self.index_in_threadgroup / Width * Width;
  const uint32_t count = extent[0] * extent[1] * extent[2] - begin;
  return count < Width ? (1u << count) - 1 : ~0u >> (32 - Width);
}

// ---- what is done with two values ------------------------------------------------------------------

// The type of a result: for a swizzle, the vector that it stands for.
template <class T>
constexpr auto nf_value_of() {
  if constexpr (nf::Vector<T>) {
    return nf::plain_t<T>{};
  } else {
    return T{};
  }
}
template <class T>
using nf_value = decltype(nf_value_of<T>());

// A bool counts as an int in a reduction, as overload resolution has it in Metal.
template <class T>
using nf_number = std::conditional_t<std::is_same_v<T, bool>, int, nf_value<T>>;

// NaNs lose against numbers.
template <class T>
NF_UNSEEN T nf_lesser(T a, T b) {
  return b < a || a != a ? b : a;
}
template <class T>
NF_UNSEEN T nf_greater(T a, T b) {
  return a < b || a != a ? b : a;
}
template <class T, int N>
NF_UNSEEN vec<T, N> nf_lesser(vec<T, N> a, vec<T, N> b) {
  for (int i = 0; i < N; ++i) a[i] = nf_lesser(T(a[i]), T(b[i]));
  return a;
}
template <class T, int N>
NF_UNSEEN vec<T, N> nf_greater(vec<T, N> a, vec<T, N> b) {
  for (int i = 0; i < N; ++i) a[i] = nf_greater(T(a[i]), T(b[i]));
  return a;
}

#define NF_OPERATION(name, expression)       \
  struct name {                              \
    template <class T>                       \
    NF_UNSEEN T operator()(T a, T b) const { \
      return T(expression);                  \
    }                                        \
  };
NF_OPERATION(nf_plus, a + b)
NF_OPERATION(nf_times, a * b)
NF_OPERATION(nf_min, nf_lesser(a, b))
NF_OPERATION(nf_max, nf_greater(a, b))
NF_OPERATION(nf_and, a & b)
NF_OPERATION(nf_or, a | b)
NF_OPERATION(nf_xor, a ^ b)
#undef NF_OPERATION

// ---- reductions ------------------------------------------------------------------------------------

// The tree of a butterfly (lanes that differ in bit 0, then in bit 1, ...), whose result is the same in every lane: the
// order in which Apple's GPUs add, by the experience of mlx-lm. Sums of half and bfloat round at each step.
template <int Width, class T, class Operation>
NF_UNSEEN T nf_reduce(T value, Operation operation, const char* function, const char* file, int line) {
  nf_lanes<T, Width> lanes(value, function, file, line);
  T* values = reinterpret_cast<T*>(lanes.values);
  for (int step = 1; step < Width; step *= 2) {
    for (int lane = 0; lane < Width; lane += 2 * step) {
      if (!lanes.exists(lane + step)) continue;
      values[lane] = lanes.exists(lane) ? operation(values[lane], values[lane + step]) : values[lane + step];
      lanes.existing |= 1u << lane;
    }
  }
  return values[0];
}

// In the order of the lanes: `identity`, then the lanes below this one, then this one if `inclusive`.
template <int Width, class T, class Operation>
NF_UNSEEN T nf_prefix(T value, Operation operation, T identity, bool inclusive, const char* function, const char* file,
                      int line) {
  const nf_lanes<T, Width> lanes(value, function, file, line);
  T result = identity;
  for (int lane = 0; lane < lanes.self + inclusive; ++lane) {
    if (lanes.exists(lane)) result = operation(result, lanes[lane]);
  }
  return result;
}

// ---- moving values ---------------------------------------------------------------------------------

// The value of the lane that from(own lane) names.
template <int Width, class T, class From>
NF_UNSEEN T nf_take(T value, From from, const char* function, const char* file, int line) {
  const nf_lanes<T, Width> lanes(value, function, file, line);
  return lanes[from(lanes.self)];
}

// As nf_take, but past the group's ends a lane keeps its own value.
template <int Width, class T>
NF_UNSEEN T nf_shift(T value, int offset, const char* function, const char* file, int line) {
  const auto from = [=](int self) {
    return self + offset >= 0 && self + offset < Width ? self + offset : self;
  };
  return nf_take<Width>(value, from, function, file, line);
}

template <class T>
struct nf_filled {
  T value, filling;
};

// Each `modulo` lanes are a window that slides over data and filling side by side: where lane + offset leaves the data,
// the result comes from the filling, which continues it.
template <int Width, class T>
NF_UNSEEN T nf_shift_and_fill(T value, T filling, int offset, int modulo, const char* function, const char* file,
                              int line) {
  const nf_lanes<nf_filled<T>, Width> lanes({value, filling}, function, file, line);
  const int begin = lanes.self / modulo * modulo, from = lanes.self - begin + offset;
  if (from >= 0 && from < modulo) return lanes[begin + from].value;
  return lanes[begin + from + (from < 0 ? modulo : -modulo)].filling;
}

// ---- votes -----------------------------------------------------------------------------------------

// One bit a lane.
template <int Width>
class nf_vote {
 public:
  using vote_t = std::conditional_t<Width == 32, unsigned long, unsigned>;

  explicit constexpr nf_vote(vote_t votes = 0) : votes(votes) {}
  explicit constexpr operator vote_t() const { return votes; }

  bool all() const {
    const uint32_t existing = nf_existing_lanes<Width>();
    return (votes & existing) == existing;
  }
  bool any() const { return (votes & nf_existing_lanes<Width>()) != 0; }

 private:
  vote_t votes;
};

using simd_vote = nf_vote<32>;
using quad_vote = nf_vote<4>;

template <int Width>
NF_UNSEEN nf_vote<Width> nf_ballot(bool vote, const char* function, const char* file, int line) {
  const nf_lanes<bool, Width> lanes(vote, function, file, line);
  uint32_t votes = 0;
  for (int lane = 0; lane < Width; ++lane) votes |= uint32_t(lanes[lane]) << lane;
  return nf_vote<Width>(votes);
}

// The lanes that are here; that some are elsewhere is a finding of the exchange.
template <int Width>
NF_UNSEEN uint32_t nf_active(const char* function, const char* file, int line) {
  return nf_lanes<bool, Width>(true, function, file, line).existing;
}

// ---- the functions by their names ------------------------------------------------------------------

#define NF_REDUCTION(name, width, Operation)                                                                           \
  template <class T>                                                                                                   \
  NF_UNSEEN nf_number<T> name(T data, NF_CALLER) {                                                                     \
    return nf_reduce<width>(nf_number<T>(data), Operation{}, #name, file, line);                                       \
  }

#define NF_PREFIX(name, width, Operation, identity, inclusive)                                                         \
  template <class T>                                                                                                   \
  NF_UNSEEN nf_number<T> name(T data, NF_CALLER) {                                                                     \
    using Number = nf_number<T>;                                                                                       \
    return nf_prefix<width>(Number(data), Operation{}, Number(identity), inclusive, #name, file, line);                \
  }

// `from` is an expression in self, the own lane, and the argument.
#define NF_TAKE(name, width, argument, from)                                                                           \
  template <class T>                                                                                                   \
  NF_UNSEEN nf_value<T> name(T data, uint16_t argument, NF_CALLER) {                                                   \
    return nf_take<width>(nf_value<T>(data), [=](int self) { return from; }, #name, file, line);                       \
  }

#define NF_SHIFT(name, width, sign)                                                                                    \
  template <class T>                                                                                                   \
  NF_UNSEEN nf_value<T> name(T data, uint16_t delta, NF_CALLER) {                                                      \
    return nf_shift<width>(nf_value<T>(data), sign int(delta), #name, file, line);                                     \
  }

#define NF_SHIFT_AND_FILL(name, width, sign)                                                                           \
  template <class T>                                                                                                   \
  NF_UNSEEN nf_value<T> name(T data, nf_value<T> filling, uint16_t delta, NF_CALLER) {                                 \
    return nf_shift_and_fill<width>(nf_value<T>(data), filling, sign int(delta), width, #name, file, line);            \
  }                                                                                                                    \
  template <class T>                                                                                                   \
  NF_UNSEEN nf_value<T> name(T data, nf_value<T> filling, uint16_t delta, uint16_t modulo, NF_CALLER) {                \
    return nf_shift_and_fill<width>(nf_value<T>(data), filling, sign int(delta), modulo, #name, file, line);           \
  }

#define NF_FUNCTIONS(group, width)                                                                                     \
  NF_REDUCTION(group##_sum, width, nf_plus)                                                                            \
  NF_REDUCTION(group##_product, width, nf_times)                                                                       \
  NF_REDUCTION(group##_min, width, nf_min)                                                                             \
  NF_REDUCTION(group##_max, width, nf_max)                                                                             \
  NF_REDUCTION(group##_and, width, nf_and)                                                                             \
  NF_REDUCTION(group##_or, width, nf_or)                                                                               \
  NF_REDUCTION(group##_xor, width, nf_xor)                                                                             \
  NF_PREFIX(group##_prefix_inclusive_sum, width, nf_plus, 0, true)                                                     \
  NF_PREFIX(group##_prefix_exclusive_sum, width, nf_plus, 0, false)                                                    \
  NF_PREFIX(group##_prefix_inclusive_product, width, nf_times, 1, true)                                                \
  NF_PREFIX(group##_prefix_exclusive_product, width, nf_times, 1, false)                                               \
  NF_TAKE(group##_broadcast, width, lane, lane)                                                                        \
  NF_TAKE(group##_shuffle, width, lane, lane)                                                                          \
  NF_TAKE(group##_shuffle_xor, width, mask, self ^ mask)                                                               \
  NF_TAKE(group##_shuffle_rotate_up, width, delta, (self - delta) & (width - 1))                                       \
  NF_TAKE(group##_shuffle_rotate_down, width, delta, (self + delta) & (width - 1))                                     \
  NF_SHIFT(group##_shuffle_up, width, -)                                                                               \
  NF_SHIFT(group##_shuffle_down, width, +)                                                                             \
  NF_SHIFT_AND_FILL(group##_shuffle_and_fill_up, width, -)                                                             \
  NF_SHIFT_AND_FILL(group##_shuffle_and_fill_down, width, +)                                                           \
  template <class T>                                                                                                   \
  NF_UNSEEN nf_value<T> group##_broadcast_first(T data, NF_CALLER) {                                                   \
    const nf_lanes<nf_value<T>, width> lanes(data, #group "_broadcast_first", file, line);                             \
    return lanes[__builtin_ctz(lanes.existing)];                                                                       \
  }                                                                                                                    \
  NF_UNSEEN group##_vote group##_ballot(bool vote, NF_CALLER) {                                                        \
    return nf_ballot<width>(vote, #group "_ballot", file, line);                                                       \
  }                                                                                                                    \
  NF_UNSEEN bool group##_all(bool vote, NF_CALLER) {                                                                   \
    return nf_ballot<width>(vote, #group "_all", file, line).all();                                                    \
  }                                                                                                                    \
  NF_UNSEEN bool group##_any(bool vote, NF_CALLER) {                                                                   \
    return nf_ballot<width>(vote, #group "_any", file, line).any();                                                    \
  }                                                                                                                    \
  NF_UNSEEN group##_vote group##_active_threads_mask(NF_CALLER) {                                                      \
    return group##_vote(nf_active<width>(#group "_active_threads_mask", file, line));                                  \
  }                                                                                                                    \
  NF_UNSEEN bool group##_is_first(NF_CALLER) {                                                                         \
    const uint32_t active = nf_active<width>(#group "_is_first", file, line);                                          \
    return nf_self()->index_in_threadgroup % width == uint32_t(__builtin_ctz(active));                                 \
  }                                                                                                                    \
  NF_UNSEEN bool group##_is_helper_thread() { return false; }

NF_FUNCTIONS(simd, 32)
NF_FUNCTIONS(quad, 4)

#undef NF_REDUCTION
#undef NF_PREFIX
#undef NF_TAKE
#undef NF_SHIFT
#undef NF_SHIFT_AND_FILL
#undef NF_FUNCTIONS

}  // namespace metal
