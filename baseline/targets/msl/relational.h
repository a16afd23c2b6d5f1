// MSL's <metal_relational>, and select. Whether a float is NaN is asked of its bits: -ffast-math has no say in it.
#pragma once

#include "vector.h"

namespace metal {
namespace nf {

// The bits of |x|, as those of a float; they grow with |x|, up to infinity's.
NF_FN constexpr std::uint32_t magnitude(float x) { return std::bit_cast<std::uint32_t>(x) & 0x7fffffff; }
inline constexpr std::uint32_t INFINITE = 0x7f800000;

template <class T>
NF_FN constexpr bool normal(T x) {
  constexpr T least = numeric_limits<T>::min();
  const std::uint32_t bits = magnitude(static_cast<float>(x));
  return bits < INFINITE && bits >= magnitude(static_cast<float>(least));
}

}  // namespace nf

#define NF_CLASS(name, T, expression)                                                        \
  template <nf::Value A>                                                                     \
  NF_FN constexpr auto name(A a) {                                                           \
    return nf::map<bool, T>([](T x) NF_INLINE { return expression; }, a);                    \
  }
NF_CLASS(isfinite, float, nf::magnitude(x) < nf::INFINITE)
NF_CLASS(isinf, float, nf::magnitude(x) == nf::INFINITE)
NF_CLASS(isnan, float, (nf::magnitude(x) > nf::INFINITE))
NF_CLASS(isnormal, nf::element<A>, nf::normal(x))
NF_CLASS(signbit, float, std::bit_cast<std::uint32_t>(x) >> 31)
#undef NF_CLASS

template <class A, class B>
  requires nf::Agreeing<A, B>
NF_FN constexpr auto isunordered(A a, B b) {
  return nf::map<bool, float>(
      [](float x, float y) NF_INLINE { return nf::magnitude(x) > nf::INFINITE || nf::magnitude(y) > nf::INFINITE; }, a,
      b);
}
template <class A, class B>
  requires nf::Agreeing<A, B>
NF_FN constexpr auto isordered(A a, B b) {
  return !isunordered(a, b);
}

#define NF_COMPARISON(name, op)                                                                  \
  template <class A, class B>                                                                    \
    requires nf::Agreeing<A, B>                                                                  \
  NF_FN constexpr auto name(A a, B b) {                                                          \
    using T = nf::element_of<A, B>;                                                              \
    return nf::map<bool, T>([](T x, T y) NF_INLINE { return x op y; }, a, b);                    \
  }
NF_COMPARISON(isequal, ==)
NF_COMPARISON(isnotequal, !=)
NF_COMPARISON(isless, <)
NF_COMPARISON(islessequal, <=)
NF_COMPARISON(isgreater, >)
NF_COMPARISON(isgreaterequal, >=)
#undef NF_COMPARISON

#define NF_OVER_ELEMENTS(name, op)                                     \
  template <nf::Value A>                                               \
  NF_FN constexpr bool name(A a) {                                     \
    constexpr int n = nf::shape<A>::n;                                 \
    if constexpr (n == 1) {                                            \
      return static_cast<bool>(a);                                     \
    } else {                                                           \
      const vec<bool, n> v(a);                                         \
      if constexpr (n == 2) return v.x op v.y;                         \
      if constexpr (n == 3) return v.x op v.y op v.z;                  \
      if constexpr (n == 4) return v.x op v.y op v.z op v.w;           \
    }                                                                  \
  }
NF_OVER_ELEMENTS(all, &&)
NF_OVER_ELEMENTS(any, ||)
#undef NF_OVER_ELEMENTS

// c ? b : a, for each element; one bool decides for all of them.
template <class A, class B, class C>
  requires nf::Agreeing<A, B> && (nf::Scalar<C> || nf::shape<C>::n == nf::common<A, B>::n)
NF_FN constexpr auto select(A a, B b, C c) {
  using T = nf::element_of<A, B>;
  return nf::map_mixed<T>([](T x, T y, nf::element<C> chosen) NF_INLINE { return chosen ? y : x; }, a, b, c);
}

}  // namespace metal
