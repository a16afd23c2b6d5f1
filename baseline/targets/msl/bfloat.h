// MSL's bfloat: the upper half of a float. Its conversions are MSL 3.1's: to float it is implicit, from float, half
// and to integers explicit. Sums, products and quotients are those of float, rounded to nearest even.
#pragma once
#pragma GCC system_header  // literal suffixes without an underscore

#include <bit>
#include <cstdint>
#include <limits>
#include <type_traits>

#define NF_INLINE __attribute__((always_inline))
#define NF_FN NF_INLINE inline

namespace metal {

typedef _Float16 half;
struct bfloat;

namespace nf {

template <class A>
inline constexpr bool is_half = std::is_same_v<A, half>;
template <class A>
inline constexpr bool is_bfloat = std::is_same_v<A, bfloat>;
template <class A>
concept Integer = std::is_integral_v<A>;
template <class A>
concept Floating = std::is_floating_point_v<A> || is_half<A> || is_bfloat<A>;
template <class A>
concept Scalar = Integer<A> || Floating<A>;

// Rounds to nearest even. Clear of infinity's pattern a carry may reach the exponent: that is how it overflows.
NF_FN constexpr std::uint16_t bfloat_bits(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if (value != value) return static_cast<std::uint16_t>(bits >> 16 | 0x40);  // a NaN stays one, and becomes quiet
  return static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

}  // namespace nf

struct bfloat {
  std::uint16_t nf_bits;

  bfloat() = default;
  // Not the implicit ones: for a type that is trivial to copy, GCC lets a call read its argument from memory, and write
  // its result there, without a hook.
  NF_INLINE constexpr bfloat(const bfloat& other) : nf_bits(other.nf_bits) {}
  NF_INLINE constexpr bfloat& operator=(const bfloat& other) {
    nf_bits = other.nf_bits;
    return *this;
  }
  template <nf::Scalar A>
    requires(!nf::is_bfloat<A>)
  NF_INLINE constexpr explicit(!nf::Integer<A>) bfloat(A value)
      : nf_bits(nf::bfloat_bits(static_cast<float>(value))) {}

  // A template, so that a standard conversion cannot follow it: `c ? bfloat : int` would have two ways to a type.
  template <class A>
    requires(nf::Scalar<A> && !nf::is_bfloat<A>)
  NF_INLINE constexpr explicit(!std::is_floating_point_v<A>) operator A() const {
    return static_cast<A>(std::bit_cast<float>(static_cast<std::uint32_t>(nf_bits) << 16));
  }

  static constexpr bfloat nf_of_bits(std::uint16_t bits) {
    bfloat value{};
    value.nf_bits = bits;
    return value;
  }
};
typedef bfloat bfloat16_t;
typedef half float16_t;

NF_FN constexpr half operator""h(long double value) { return static_cast<half>(value); }
NF_FN constexpr half operator""H(long double value) { return static_cast<half>(value); }
NF_FN constexpr bfloat operator""bf(long double value) { return bfloat(static_cast<float>(value)); }
NF_FN constexpr bfloat operator""BF(long double value) { return bfloat(static_cast<float>(value)); }

namespace nf {

struct none {};

// The type of a sum of two scalars of different types. A double is a literal: MSL's have no more than a float.
template <class A, class B>
constexpr auto mix_of() {
  if constexpr (std::is_same_v<A, none>) {
    return B{};
  } else if constexpr (std::is_same_v<B, none> || (std::is_same_v<A, B> && !std::is_same_v<A, double>)) {
    return A{};
  } else if constexpr (Integer<A> && Integer<B>) {
    return std::common_type_t<A, B>{};
  } else if constexpr (Integer<A> && !std::is_same_v<B, double>) {
    return B{};
  } else if constexpr (Integer<B> && !std::is_same_v<A, double>) {
    return A{};
  } else {
    return float{};
  }
}
template <class A, class B>
using mix = decltype(mix_of<A, B>());

template <class A, class B>
concept BfloatPair = (is_bfloat<A> && Scalar<B>) || (Scalar<A> && is_bfloat<B>);

}  // namespace nf

#define NF_BFLOAT_ARITHMETIC(op)                                           \
  template <class A, class B>                                              \
    requires nf::BfloatPair<A, B>                                          \
  NF_FN constexpr nf::mix<A, B> operator op(A a, B b) {                    \
    return nf::mix<A, B>(static_cast<float>(a) op static_cast<float>(b));  \
  }                                                                        \
  template <nf::Scalar B>                                                  \
  NF_FN constexpr bfloat& operator op##=(bfloat& a, B b) {                 \
    return a = bfloat(static_cast<float>(a) op static_cast<float>(b));     \
  }                                                                        \
  template <nf::Scalar A>                                                  \
    requires(!nf::is_bfloat<A>)                                            \
  NF_FN constexpr A& operator op##=(A& a, bfloat b) {                      \
    return a = static_cast<A>(static_cast<float>(a) op static_cast<float>(b)); \
  }
NF_BFLOAT_ARITHMETIC(+)
NF_BFLOAT_ARITHMETIC(-)
NF_BFLOAT_ARITHMETIC(*)
NF_BFLOAT_ARITHMETIC(/)
#undef NF_BFLOAT_ARITHMETIC

#define NF_BFLOAT_COMPARISON(op)                            \
  template <class A, class B>                               \
    requires nf::BfloatPair<A, B>                           \
  NF_FN constexpr bool operator op(A a, B b) {              \
    return static_cast<float>(a) op static_cast<float>(b);  \
  }
NF_BFLOAT_COMPARISON(==)
NF_BFLOAT_COMPARISON(!=)
NF_BFLOAT_COMPARISON(<)
NF_BFLOAT_COMPARISON(<=)
NF_BFLOAT_COMPARISON(>)
NF_BFLOAT_COMPARISON(>=)
#undef NF_BFLOAT_COMPARISON

NF_FN constexpr bfloat operator+(bfloat a) { return a; }
NF_FN constexpr bfloat operator-(bfloat a) { return bfloat::nf_of_bits(a.nf_bits ^ 0x8000); }
NF_FN constexpr bfloat& operator++(bfloat& a) { return a += 1; }
NF_FN constexpr bfloat& operator--(bfloat& a) { return a -= 1; }
NF_FN constexpr bfloat operator++(bfloat& a, int) {
  const bfloat before = a;
  ++a;
  return before;
}
NF_FN constexpr bfloat operator--(bfloat& a, int) {
  const bfloat before = a;
  --a;
  return before;
}

}  // namespace metal
