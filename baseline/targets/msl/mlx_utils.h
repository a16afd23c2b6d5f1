// What MLX puts in front of every custom kernel. Names are MLX's, which has them in the global namespace; here a kernel
// finds them through `using namespace metal`.
#pragma once

#include <cstdint>
#include <type_traits>

#include "complex.h"
#include "math.h"
#include "types.h"
#include "vector.h"

#define METAL_FUNC __attribute__((always_inline)) inline
#define MTL_CONST
#define MLX_MTL_CONST static constexpr
#define MLX_MTL_PRAGMA_UNROLL

namespace metal {

// ---- limits ----------------------------------------------------------------------------------------

// The largest and smallest values, infinite ones included; the finite_ ones leave those out.
template <class T>
struct Limits {
  static constexpr T max = numeric_limits<T>::max(), finite_max = max;
  static constexpr T min = numeric_limits<T>::min(), finite_min = min;
};

template <class T>
struct nf_float_limits {
  static constexpr T max = numeric_limits<T>::infinity(), finite_max = numeric_limits<T>::max();
  static constexpr T min = -numeric_limits<T>::infinity(), finite_min = -numeric_limits<T>::max();
};
template <>
struct Limits<float> : nf_float_limits<float> {};
template <>
struct Limits<half> : nf_float_limits<half> {};
template <>
struct Limits<bfloat> : nf_float_limits<bfloat> {};

template <>
struct Limits<bool> {
  static constexpr bool max = true, min = false;
};

template <class T>
struct Limits<complex_t<T>> {
  static constexpr complex_t<T> max{Limits<T>::max, Limits<T>::max};
  static constexpr complex_t<T> min{Limits<T>::min, Limits<T>::min};
};

// ---- indices ---------------------------------------------------------------------------------------

// How many elements a thread of MLX's elementwise kernels takes: 8 bytes of them.
template <class T>
struct WorkPerThread {
  static_assert(sizeof(T) <= 8);
  static constexpr int n = 8 / sizeof(T);
};

template <class T, class U>
constexpr T ceildiv(T n, U divisor) {
  return (n + divisor - 1) / divisor;
}

// Where element `elem`, counted in row-major order over `shape`, lies in an array of these strides (in elements).
template <class Index = int64_t>
METAL_FUNC Index elem_to_loc(Index elem, const int* shape, const int64_t* strides, int ndim) {
  Index location = 0;
  for (int axis = ndim - 1; axis >= 0 && elem > 0; --axis) {
    location += elem % shape[axis] * Index(strides[axis]);
    elem /= shape[axis];
  }
  return location;
}

// The same for an element given as (index in the last axis, in the one before, in all others together).
template <class Index = int64_t>
METAL_FUNC Index elem_to_loc(uint3 elem, const int* shape, const int64_t* strides, int ndim) {
  const Index inner = Index(elem.x) * Index(strides[ndim - 1]) + Index(elem.y) * Index(strides[ndim - 2]);
  return inner + elem_to_loc<Index>(Index(elem.z), shape, strides, ndim - 2);
}

template <class Index = int64_t>
METAL_FUNC Index elem_to_loc_1(uint elem, const int64_t& stride) {
  return Index(elem) * Index(stride);
}
template <class Index = int64_t>
METAL_FUNC Index elem_to_loc_2(uint2 elem, const int64_t* strides) {
  return Index(elem.x) * Index(strides[1]) + Index(elem.y) * Index(strides[0]);
}
template <class Index = int64_t>
METAL_FUNC Index elem_to_loc_3(uint3 elem, const int64_t* strides) {
  return Index(elem.x) * Index(strides[2]) + Index(elem.y) * Index(strides[1]) + Index(elem.z) * Index(strides[0]);
}

// Where one element lies in each of two or three arrays of the same shape.
template <class Index = int64_t>
METAL_FUNC vec<Index, 2> elem_to_loc_2_nd(uint3 elem, const int* shape, const int64_t* a_strides,
                                          const int64_t* b_strides, int ndim) {
  return {elem_to_loc<Index>(elem, shape, a_strides, ndim), elem_to_loc<Index>(elem, shape, b_strides, ndim)};
}
template <class Index = int64_t>
METAL_FUNC vec<Index, 3> elem_to_loc_3_nd(uint3 elem, const int* shape, const int64_t* a_strides,
                                          const int64_t* b_strides, const int64_t* c_strides, int ndim) {
  return {elem_to_loc_2_nd<Index>(elem, shape, a_strides, b_strides, ndim),
          elem_to_loc<Index>(elem, shape, c_strides, ndim)};
}

// Where the elements from 0 on lie, one after the other. What the template knows of the number of axes makes it fast
// on a GPU, and is of no account here.
template <int DIM, class Offset = size_t, bool General = true>
struct LoopedElemToLoc {
  METAL_FUNC LoopedElemToLoc(int dim) : dim(dim) {}

  METAL_FUNC void next(const int* shape, const int64_t* strides) { next(1, shape, strides); }
  METAL_FUNC void next(int n, const int* shape, const int64_t* strides) {
    index += n;
    offset = dim == 0 ? Offset(0) : elem_to_loc<int64_t>(index, shape, strides, dim);
  }
  METAL_FUNC Offset location() const { return offset; }

 private:
  int dim;
  int64_t index = 0;
  Offset offset = 0;
};

// ---- arithmetic ------------------------------------------------------------------------------------

// The complex twin of log1p, as MLX computes it.
inline complex64_t log1p(complex64_t z) {
  const float x = z.real, y = z.imag, angle = metal::atan2(y, x + 1);
  if (metal::sqrt(x * x + y * y) >= 0.5f) {
    return {metal::log(metal::sqrt((x + 1) * (x + 1) + y * y)), angle};
  }
  const float square = x * (2 + x) + y * y;  // |1 + z|^2 - 1; zero where it underflows
  return {square == 0 ? x : 0.5f * metal::log1p(square), angle};
}

// As a conversion, but true for every bit pattern of a float that is not a zero.
template <class U, class T>
METAL_FUNC U cast_to(T value) {
  if constexpr (std::is_same_v<U, bool> && is_complex_v<T>) {
    return value.real != 0 || value.imag != 0;
  } else {
    return static_cast<U>(value);
  }
}

template <bool condition, class T, class U>
struct ConditionalType : std::conditional<condition, T, U> {};

}  // namespace metal
