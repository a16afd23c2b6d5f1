// MSL's array<T, N>: as std::array, an aggregate.
#pragma once

#include "types.h"

namespace metal {

template <class T, size_t N>
struct array {
  T nf_e[N];

  NF_INLINE constexpr T& operator[](size_t i) { return nf_e[i]; }
  NF_INLINE constexpr const T& operator[](size_t i) const { return nf_e[i]; }
  static constexpr size_t size() { return N; }
  static constexpr bool empty() { return N == 0; }
  NF_INLINE constexpr T* data() { return nf_e; }
  NF_INLINE constexpr const T* data() const { return nf_e; }
  NF_INLINE constexpr T& front() { return nf_e[0]; }
  NF_INLINE constexpr T& back() { return nf_e[N - 1]; }
  NF_INLINE constexpr T* begin() { return nf_e; }
  NF_INLINE constexpr T* end() { return nf_e + N; }
  NF_INLINE constexpr const T* begin() const { return nf_e; }
  NF_INLINE constexpr const T* end() const { return nf_e + N; }
  NF_INLINE constexpr void fill(const T& value) {
    for (T& element : nf_e) element = value;
  }
};

}  // namespace metal
