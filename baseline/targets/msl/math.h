// MSL's <metal_math>: of scalars and of vectors, element by element. A function works in float and rounds its result to
// the type that its arguments have together, which is what MLX's bfloat overloads do; an integer counts as a float.
// The fast and the precise functions are the same ones here, those of the C library.
#pragma once

#include "vector.h"

namespace metal {
namespace nf {

template <class T>
using floating = std::conditional_t<Integer<T> || std::is_same_v<T, double>, float, T>;

// Where a fused multiply-add rounds once: the product and the sum of halves are exact in a double.
template <class T>
using wide = std::conditional_t<is_half<T>, double, float>;

// The greater of two, and the other one if one is NaN.
template <class T>
NF_FN constexpr T greater(T x, T y) {
  if constexpr (Floating<T>) {
    if (x != x) return y;
  }
  return x < y ? y : x;
}
template <class T>
NF_FN constexpr T lesser(T x, T y) {
  if constexpr (Floating<T>) {
    if (x != x) return y;
  }
  return y < x ? y : x;
}

// x - floor(x), but never the 1 to which that may round.
template <class R>
NF_FN float fraction(float x) {
  constexpr float greatest = 1 - static_cast<float>(numeric_limits<R>::epsilon()) / 2;
  return lesser(x - std::floor(x), greatest);
}

// sin(pi x) and cos(pi x): whole turns are taken off before the multiplication; where the value is 0, it is exact.
NF_FN float sin_of_pi(float x) {
  const float turn = std::fmod(x, 2.0f);
  return std::fmod(turn, 1.0f) == 0 ? 0.0f : static_cast<float>(std::sin(M_PI * turn));
}
NF_FN float cos_of_pi(float x) {
  const float turn = std::fmod(std::fabs(x), 2.0f);
  return std::fmod(turn, 1.0f) == 0.5f ? 0.0f : static_cast<float>(std::cos(M_PI * turn));
}

}  // namespace nf

// ---- one argument -----------------------------------------------------------------------------------

#define NF_MATH1(name, expression)                                                            \
  template <nf::Value A>                                                                      \
  NF_FN auto name(A a) {                                                                      \
    using R = nf::floating<nf::element<A>>;                                                   \
    return nf::map<R, float>([](float x) NF_INLINE { return expression; }, a);                \
  }
NF_MATH1(acos, std::acos(x))
NF_MATH1(acosh, std::acosh(x))
NF_MATH1(asin, std::asin(x))
NF_MATH1(asinh, std::asinh(x))
NF_MATH1(atan, std::atan(x))
NF_MATH1(atanh, std::atanh(x))
NF_MATH1(ceil, std::ceil(x))
NF_MATH1(cos, std::cos(x))
NF_MATH1(cosh, std::cosh(x))
NF_MATH1(cospi, nf::cos_of_pi(x))
NF_MATH1(exp, std::exp(x))
NF_MATH1(exp2, std::exp2(x))
NF_MATH1(exp10, static_cast<float>(std::pow(10.0, static_cast<double>(x))))
NF_MATH1(log1p, std::log1p(x))
NF_MATH1(fabs, std::fabs(x))
NF_MATH1(floor, std::floor(x))
NF_MATH1(fract, nf::fraction<R>(x))
NF_MATH1(log, std::log(x))
NF_MATH1(log2, std::log2(x))
NF_MATH1(log10, std::log10(x))
NF_MATH1(rint, std::nearbyint(x))
NF_MATH1(round, std::round(x))
NF_MATH1(rsqrt, 1.0f / std::sqrt(x))
NF_MATH1(saturate, (x > 0 ? (x < 1 ? x : 1.0f) : 0.0f))  // NaN becomes 0
NF_MATH1(sign, (x > 0 ? 1.0f : x < 0 ? -1.0f : x == 0 ? x : 0.0f))
NF_MATH1(sin, std::sin(x))
NF_MATH1(sinh, std::sinh(x))
NF_MATH1(sinpi, nf::sin_of_pi(x))
NF_MATH1(sqrt, std::sqrt(x))
NF_MATH1(tan, std::tan(x))
NF_MATH1(tanh, std::tanh(x))
NF_MATH1(tanpi, (nf::sin_of_pi(x) / nf::cos_of_pi(x)))
NF_MATH1(trunc, std::trunc(x))
#undef NF_MATH1

template <nf::Value A>
NF_FN constexpr auto abs(A a) {
  using T = nf::element<A>;
  if constexpr (nf::Integer<T>) {
    return nf::map<T, T>([](T x) NF_INLINE { return static_cast<T>(x < 0 ? 0 - x : x); }, a);
  } else {
    return fabs(a);
  }
}

// ---- two and more -----------------------------------------------------------------------------------

#define NF_MATH2(name, expression)                                                                   \
  template <class A, class B>                                                                        \
    requires nf::Agreeing<A, B>                                                                      \
  NF_FN auto name(A a, B b) {                                                                        \
    using R = nf::floating<nf::element_of<A, B>>;                                                    \
    return nf::map<R, float>([](float x, float y) NF_INLINE { return expression; }, a, b);           \
  }
NF_MATH2(atan2, std::atan2(x, y))
NF_MATH2(copysign, std::copysign(x, y))
NF_MATH2(divide, x / y)
NF_MATH2(fdim, (x > y || x != x || y != y ? x - y : 0.0f))
NF_MATH2(fmod, std::fmod(x, y))
NF_MATH2(pow, std::pow(x, y))
NF_MATH2(powr, std::pow(x, y))
NF_MATH2(step, (y < x ? 0.0f : 1.0f))
NF_MATH2(fmax, nf::greater(x, y))
NF_MATH2(fmin, nf::lesser(x, y))
#undef NF_MATH2

// Of integers too: min and max of mixed types have the type of their sum.
template <class A, class B>
  requires nf::Agreeing<A, B>
NF_FN constexpr auto max(A a, B b) {
  using T = nf::element_of<A, B>;
  return nf::map<T, T>([](T x, T y) NF_INLINE { return nf::greater(x, y); }, a, b);
}
template <class A, class B>
  requires nf::Agreeing<A, B>
NF_FN constexpr auto min(A a, B b) {
  using T = nf::element_of<A, B>;
  return nf::map<T, T>([](T x, T y) NF_INLINE { return nf::lesser(x, y); }, a, b);
}

#define NF_OF_THREE(name, expression)         \
  template <class A, class B, class C>        \
    requires nf::Agreeing<A, B, C>            \
  NF_FN constexpr auto name(A a, B b, C c) {  \
    return expression;                        \
  }
NF_OF_THREE(max3, max(max(a, b), c))
NF_OF_THREE(min3, min(min(a, b), c))
NF_OF_THREE(fmax3, max(max(a, b), c))
NF_OF_THREE(fmin3, min(min(a, b), c))
NF_OF_THREE(median3, max(min(a, b), min(max(a, b), c)))
NF_OF_THREE(fmedian3, max(min(a, b), min(max(a, b), c)))
NF_OF_THREE(clamp, min(max(a, b), c))
#undef NF_OF_THREE

template <class A, class B, class C>
  requires nf::Agreeing<A, B, C>
NF_FN auto fma(A a, B b, C c) {
  using R = nf::floating<nf::element_of<A, B, C>>;
  using W = nf::wide<R>;
  return nf::map<R, W>([](W x, W y, W z) NF_INLINE { return std::fma(x, y, z); }, a, b, c);
}

// Between a (at 0) and b (at 1).
template <class A, class B, class C>
  requires nf::Agreeing<A, B, C>
NF_FN auto mix(A a, B b, C c) {
  using R = nf::floating<nf::element_of<A, B, C>>;
  return nf::map<R, float>([](float x, float y, float t) NF_INLINE { return x + (y - x) * t; }, a, b, c);
}

// 0 below the first edge, 1 above the second, a cubic with level ends between them.
template <class A, class B, class C>
  requires nf::Agreeing<A, B, C>
NF_FN auto smoothstep(A a, B b, C c) {
  using R = nf::floating<nf::element_of<A, B, C>>;
  return nf::map<R, float>(
      [](float low, float high, float x) NF_INLINE {
        const float t = nf::lesser(nf::greater((x - low) / (high - low), 0.0f), 1.0f);
        return t * t * (3 - 2 * t);
      },
      a, b, c);
}

// ---- with a second result, and with integers --------------------------------------------------------

template <nf::Value A, class B>
NF_FN auto sincos(A a, B& cosine) {
  cosine = cos(a);
  return sin(a);
}

// Splits into a whole number and a fraction, both with the sign of a.
template <nf::Value A, class B>
NF_FN auto modf(A a, B& whole) {
  using R = nf::floating<nf::element<A>>;
  whole = trunc(a);
  return nf::map<R, float>(
      [](float x) NF_INLINE { return std::copysign(std::isinf(x) ? 0.0f : x - std::trunc(x), x); }, a);
}

template <nf::Value A>
NF_FN auto ilogb(A a) {
  return nf::map<int, float>([](float x) NF_INLINE { return std::ilogb(x); }, a);
}

// A fraction in [0.5, 1) and the exponent of the power of two to be multiplied by.
template <nf::Value A, class B>
NF_FN auto frexp(A a, B& exponent) {
  using R = nf::floating<nf::element<A>>;
  exponent = nf::map<int, float>(
      [](float x) NF_INLINE {
        int result = 0;
        std::frexp(x, &result);
        return result;
      },
      a);
  return nf::map<R, float>(
      [](float x) NF_INLINE {
        int ignored;
        return std::frexp(x, &ignored);
      },
      a);
}

template <nf::Value A, nf::Value B>
  requires(nf::shape<A>::n == nf::shape<B>::n)
NF_FN auto ldexp(A a, B exponent) {
  using R = nf::floating<nf::element<A>>;
  return nf::map_mixed<R>([](float x, int k) NF_INLINE { return std::ldexp(x, k); }, a, exponent);
}

// The neighbour of a on the way to b.
template <class A>
  requires nf::Agreeing<A, A>
NF_FN auto nextafter(A a, A b) {
  using R = nf::floating<nf::element<A>>;
  return nf::map<R, R>(
      [](R x, R y) NF_INLINE {
        using Bits = std::conditional_t<sizeof(R) == 2, std::uint16_t, std::uint32_t>;
        constexpr Bits sign = Bits(1) << (8 * sizeof(R) - 1);
        const Bits bits = as_type<Bits>(x);
        if (x != x || x == y) return x != x ? x : y;
        if (y != y) return y;
        if (x == R(0)) return as_type<R>(static_cast<Bits>(y < R(0) ? sign | 1 : 1));
        return as_type<R>(static_cast<Bits>((x < y) == (x > R(0)) ? bits + 1 : bits - 1));
      },
      a, b);
}

namespace fast {
using namespace metal;
}
namespace precise {
using namespace metal;
}

}  // namespace metal
