// MSL's scalar types, their limits, the traits of <metal_type_traits> and the constants of <metal_math>.
#pragma once
#pragma GCC system_header

#include <cfloat>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#include "bfloat.h"

namespace metal {

typedef unsigned char uchar;
typedef unsigned short ushort;
typedef unsigned int uint;
typedef unsigned long ulong;
static_assert(sizeof(long) == 8, "MSL's long has 64 bits");

// One type may have a name both here and in the global namespace: `using namespace metal` makes that no ambiguity.
using std::int16_t;
using std::int32_t;
using std::int64_t;
using std::int8_t;
using std::ptrdiff_t;
using std::size_t;
using std::uint16_t;
using std::uint32_t;
using std::uint64_t;
using std::uint8_t;

// ---- <metal_limits> ---------------------------------------------------------------------------------

template <class T>
struct numeric_limits : std::numeric_limits<T> {};
template <class T>
struct numeric_limits<const T> : numeric_limits<T> {};

namespace nf {

// What the limits of a 16-bit float follow from: the bits of its significand and the greatest exponent.
template <class T, int DIGITS, int MAX_EXPONENT>
struct small_float_limits : std::numeric_limits<float> {
  static constexpr int digits = DIGITS;
  static constexpr int digits10 = (DIGITS - 1) * 30103 / 100000;
  static constexpr int max_digits10 = DIGITS * 30103 / 100000 + 2;
  static constexpr int max_exponent = MAX_EXPONENT;
  static constexpr int min_exponent = 3 - MAX_EXPONENT;
  static constexpr int max_exponent10 = MAX_EXPONENT * 30103 / 100000;
  static constexpr int min_exponent10 = -((MAX_EXPONENT - 2) * 30103 / 100000);

  static constexpr float power(int exponent) {
    float result = 1;
    for (int i = 0; i < exponent; ++i) result *= 2;
    for (int i = 0; i > exponent; --i) result /= 2;
    return result;
  }
  static constexpr T epsilon() { return T(power(1 - DIGITS)); }
  static constexpr T round_error() { return T(0.5f); }
  static constexpr T max() { return T((2 - power(1 - DIGITS)) * power(MAX_EXPONENT - 1)); }
  static constexpr T lowest() { return T(-(2 - power(1 - DIGITS)) * power(MAX_EXPONENT - 1)); }
  static constexpr T min() { return T(power(min_exponent - 1)); }
  static constexpr T denorm_min() { return T(power(min_exponent - DIGITS)); }
  static constexpr T infinity() { return T(std::numeric_limits<float>::infinity()); }
  static constexpr T quiet_NaN() { return T(std::numeric_limits<float>::quiet_NaN()); }
  static constexpr T signaling_NaN() { return quiet_NaN(); }
};

}  // namespace nf

template <>
struct numeric_limits<half> : nf::small_float_limits<half, 11, 16> {};
template <>
struct numeric_limits<bfloat> : nf::small_float_limits<bfloat, 8, 128> {};

// ---- <metal_type_traits> ----------------------------------------------------------------------------

using std::bool_constant;
using std::conditional;
using std::conditional_t;
using std::decay;
using std::decay_t;
using std::enable_if;
using std::enable_if_t;
using std::false_type;
using std::integral_constant;
using std::is_const;
using std::is_const_v;
using std::is_convertible;
using std::is_convertible_v;
using std::is_integral;
using std::is_integral_v;
using std::is_pointer;
using std::is_pointer_v;
using std::is_same;
using std::is_same_v;
using std::is_void;
using std::is_void_v;
using std::make_signed;
using std::make_signed_t;
using std::make_unsigned;
using std::make_unsigned_t;
using std::remove_const;
using std::remove_const_t;
using std::remove_cv;
using std::remove_cv_t;
using std::remove_pointer;
using std::remove_pointer_t;
using std::remove_reference;
using std::remove_reference_t;
using std::true_type;
using std::void_t;

template <class T>
inline constexpr bool is_floating_point_v = nf::Floating<std::remove_cv_t<T>>;
template <class T>
struct is_floating_point : std::bool_constant<is_floating_point_v<T>> {};
template <class T>
inline constexpr bool is_arithmetic_v = nf::Scalar<std::remove_cv_t<T>>;
template <class T>
struct is_arithmetic : std::bool_constant<is_arithmetic_v<T>> {};
template <class T>
inline constexpr bool is_signed_v = is_floating_point_v<T> || std::is_signed_v<T>;
template <class T>
struct is_signed : std::bool_constant<is_signed_v<T>> {};
template <class T>
inline constexpr bool is_unsigned_v = std::is_unsigned_v<T>;
template <class T>
struct is_unsigned : std::is_unsigned<T> {};

// ---- constants --------------------------------------------------------------------------------------

#define NF_CONSTANT(name, value)                                      \
  inline constexpr float M_##name##_F = static_cast<float>(value);    \
  inline constexpr half M_##name##_H = static_cast<half>(value##L);   \
  inline constexpr bfloat M_##name##_BF = bfloat(static_cast<float>(value));
NF_CONSTANT(E, 2.71828182845904523536)
NF_CONSTANT(LOG2E, 1.44269504088896340736)
NF_CONSTANT(LOG10E, 0.43429448190325182765)
NF_CONSTANT(LN2, 0.69314718055994530942)
NF_CONSTANT(LN10, 2.30258509299404568402)
NF_CONSTANT(PI, 3.14159265358979323846)
NF_CONSTANT(PI_2, 1.57079632679489661923)
NF_CONSTANT(PI_4, 0.78539816339744830962)
NF_CONSTANT(1_PI, 0.31830988618379067154)
NF_CONSTANT(2_PI, 0.63661977236758134308)
NF_CONSTANT(2_SQRTPI, 1.12837916709551257390)
NF_CONSTANT(SQRT2, 1.41421356237309504880)
NF_CONSTANT(SQRT1_2, 0.70710678118654752440)
#undef NF_CONSTANT

#ifndef MAXFLOAT  // where the C library has it, it is a macro
inline constexpr float MAXFLOAT = FLT_MAX;
#endif
inline constexpr half MAXHALF = numeric_limits<half>::max();
inline constexpr half HALF_MAX = numeric_limits<half>::max();
inline constexpr half HALF_MIN = numeric_limits<half>::min();
inline constexpr half HALF_EPSILON = numeric_limits<half>::epsilon();
inline constexpr int HALF_DIG = numeric_limits<half>::digits10;
inline constexpr int HALF_MANT_DIG = numeric_limits<half>::digits;
inline constexpr int HALF_MAX_EXP = numeric_limits<half>::max_exponent;
inline constexpr int HALF_MIN_EXP = numeric_limits<half>::min_exponent;
inline constexpr bfloat MAXBFLOAT = numeric_limits<bfloat>::max();
inline constexpr bfloat BFLT_MAX = numeric_limits<bfloat>::max();
inline constexpr bfloat BFLT_MIN = numeric_limits<bfloat>::min();
inline constexpr bfloat BFLT_EPSILON = numeric_limits<bfloat>::epsilon();

}  // namespace metal
