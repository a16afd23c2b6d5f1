// MSL's <metal_integer>: of scalars and of vectors, element by element.
#pragma once

#include "vector.h"

namespace metal {
namespace nf {

template <class... A>
concept Integers = Agreeing<A...> && Integer<element_of<A...>>;

template <class T>
inline constexpr int width = 8 * sizeof(T);

// A type with room for the sum and for the product of two.
template <class T>
using twice = std::conditional_t<(sizeof(T) < 8), std::conditional_t<std::is_signed_v<T>, std::int64_t, std::uint64_t>,
                                 std::conditional_t<std::is_signed_v<T>, __int128, unsigned __int128>>;

template <class T>
NF_FN constexpr T saturated(twice<T> value) {
  constexpr T least = std::numeric_limits<T>::min(), greatest = std::numeric_limits<T>::max();
  return value < twice<T>(least) ? least : value > twice<T>(greatest) ? greatest : static_cast<T>(value);
}

template <class T>
NF_FN constexpr T low_bits(int n) {  // n of them set
  using U = std::make_unsigned_t<T>;
  return n >= width<T> ? T(U(-1)) : static_cast<T>((U(1) << n) - 1);
}

template <class T>
NF_FN constexpr T reversed(T x) {
  std::make_unsigned_t<T> from = x, to = 0;
  for (int i = 0; i < width<T>; ++i) to |= (from >> i & 1) << (width<T> - 1 - i);
  return static_cast<T>(to);
}

// A field of a value, in the lowest bits; a signed one keeps its sign.
template <class T>
NF_FN constexpr T extracted(T x, int offset, int bits) {
  if (bits == 0) return 0;
  using U = std::make_unsigned_t<T>;
  const int above = width<T> - bits;
  return static_cast<T>(static_cast<T>(static_cast<U>(static_cast<U>(x) << (above - offset))) >> above);
}

template <class T>
NF_FN constexpr T inserted(T base, T insert, int offset, int bits) {
  if (bits == 0) return base;
  const T mask = static_cast<T>(low_bits<T>(bits) << offset);
  return static_cast<T>((base & ~mask) | (static_cast<T>(insert << offset) & mask));
}

}  // namespace nf

#define NF_INTEGER1(name, expression)                                                   \
  template <class A>                                                                    \
    requires nf::Integers<A>                                                            \
  NF_FN constexpr auto name(A a) {                                                      \
    using T = nf::element<A>;                                                           \
    using U [[maybe_unused]] = std::make_unsigned_t<T>;                                                \
    return nf::map<T, T>([](T x) NF_INLINE { return expression; }, a);                  \
  }
NF_INTEGER1(clz, std::countl_zero(static_cast<U>(x)))
NF_INTEGER1(ctz, std::countr_zero(static_cast<U>(x)))
NF_INTEGER1(popcount, std::popcount(static_cast<U>(x)))
NF_INTEGER1(reverse_bits, nf::reversed<T>(static_cast<U>(x)))
#undef NF_INTEGER1

#define NF_INTEGER2(name, R, expression)                                                   \
  template <class A, class B>                                                              \
    requires nf::Integers<A, B>                                                            \
  NF_FN constexpr auto name(A a, B b) {                                                    \
    using T = nf::element_of<A, B>;                                                        \
    using U [[maybe_unused]] = std::make_unsigned_t<T>;                                                   \
    using W [[maybe_unused]] = nf::twice<T>;                                                              \
    return nf::map<R, T>([](T x, T y) NF_INLINE { return expression; }, a, b);             \
  }
NF_INTEGER2(absdiff, U, (x < y ? U(y) - U(x) : U(x) - U(y)))
NF_INTEGER2(addsat, T, nf::saturated<T>(W(x) + W(y)))
NF_INTEGER2(subsat, T, (std::is_signed_v<T> || x >= y ? nf::saturated<T>(W(x) - W(y)) : T(0)))
NF_INTEGER2(hadd, T, (W(x) + W(y)) >> 1)
NF_INTEGER2(rhadd, T, (W(x) + W(y) + 1) >> 1)
NF_INTEGER2(mulhi, T, (W(x) * W(y)) >> nf::width<T>)
NF_INTEGER2(mul24, T, U(x) * U(y))
NF_INTEGER2(rotate, T, std::rotl(static_cast<U>(x), static_cast<int>(U(y) % nf::width<T>)))
#undef NF_INTEGER2

template <class A, class B, class C>
  requires nf::Integers<A, B, C>
NF_FN constexpr auto madhi(A a, B b, C c) {
  using T = nf::element_of<A, B, C>;
  using U = std::make_unsigned_t<T>;
  return nf::map<T, T>([](T x, T y, T z) NF_INLINE { return U(mulhi(x, y)) + U(z); }, a, b, c);
}
template <class A, class B, class C>
  requires nf::Integers<A, B, C>
NF_FN constexpr auto mad24(A a, B b, C c) {
  using T = nf::element_of<A, B, C>;
  using U = std::make_unsigned_t<T>;
  return nf::map<T, T>([](T x, T y, T z) NF_INLINE { return U(x) * U(y) + U(z); }, a, b, c);
}
template <class A, class B, class C>
  requires nf::Integers<A, B, C>
NF_FN constexpr auto madsat(A a, B b, C c) {
  using T = nf::element_of<A, B, C>;
  using W = nf::twice<T>;
  return nf::map<T, T>([](T x, T y, T z) NF_INLINE { return nf::saturated<T>(W(x) * W(y) + W(z)); }, a, b, c);
}

template <class A>
  requires nf::Integers<A>
NF_FN constexpr auto extract_bits(A a, unsigned offset, unsigned bits) {
  using T = nf::element<A>;
  return nf::map<T, T>([=](T x) NF_INLINE { return nf::extracted(x, offset, bits); }, a);
}
template <class A, class B>
  requires nf::Integers<A, B>
NF_FN constexpr auto insert_bits(A base, B insert, unsigned offset, unsigned bits) {
  using T = nf::element_of<A, B>;
  return nf::map<T, T>([=](T x, T y) NF_INLINE { return nf::inserted(x, y, offset, bits); }, base, insert);
}

}  // namespace metal
