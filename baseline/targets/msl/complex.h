// MLX's complex numbers.
#pragma once

#include <type_traits>

#include "types.h"
#include "vector.h"

namespace metal {

template <class T>
struct complex_t;

template <class T>
constexpr bool is_complex_v = false;
template <class T>
constexpr bool is_complex_v<complex_t<T>> = true;

// A number that stands for a complex one without imaginary part.
template <class Real, class T>
concept nf_real_for = is_arithmetic_v<Real> && std::is_constructible_v<T, Real>;

template <class T>
struct complex_t {
  using value_type = T;

  T real, imag;

  constexpr complex_t() : real(0), imag(0) {}
  constexpr complex_t(T real, T imag) : real(real), imag(imag) {}
  // Not the implicit ones: for a type that is trivial to copy, GCC lets a call read its argument from memory, and write
  // its result there, without a hook.
  constexpr complex_t(const complex_t& other) : real(other.real), imag(other.imag) {}
  constexpr complex_t& operator=(const complex_t& other) {
    real = other.real;
    imag = other.imag;
    return *this;
  }
  constexpr complex_t(vec<T, 2> parts) : real(parts[0]), imag(parts[1]) {}
  template <class Real>
    requires nf_real_for<Real, T>
  constexpr complex_t(Real real) : real(T(real)), imag(0) {}
  template <class U>
    requires(!std::is_same_v<U, T>)
  constexpr complex_t(complex_t<U> other) : real(T(other.real)), imag(T(other.imag)) {}

  constexpr operator vec<T, 2>() const { return vec<T, 2>(real, imag); }
  template <class Real>
    requires is_arithmetic_v<Real>
  constexpr operator Real() const {
    return static_cast<Real>(real);
  }

  constexpr complex_t& operator+=(complex_t other) { return *this = *this + other; }
  constexpr complex_t& operator-=(complex_t other) { return *this = *this - other; }
  constexpr complex_t& operator*=(complex_t other) { return *this = *this * other; }
  constexpr complex_t& operator/=(complex_t other) { return *this = *this / other; }

  friend constexpr complex_t operator-(complex_t a) { return {T(-a.real), T(-a.imag)}; }

  friend constexpr complex_t operator+(complex_t a, complex_t b) { return {T(a.real + b.real), T(a.imag + b.imag)}; }
  friend constexpr complex_t operator-(complex_t a, complex_t b) { return {T(a.real - b.real), T(a.imag - b.imag)}; }
  friend constexpr complex_t operator*(complex_t a, complex_t b) {
    return {T(a.real * b.real - a.imag * b.imag), T(a.real * b.imag + a.imag * b.real)};
  }
  friend constexpr complex_t operator/(complex_t a, complex_t b) {
    const T norm = b.real * b.real + b.imag * b.imag;
    return {T((a.real * b.real + a.imag * b.imag) / norm), T((a.imag * b.real - a.real * b.imag) / norm)};
  }
  // Part by part, with the sign of the divisor, as MLX has it.
  friend constexpr complex_t operator%(complex_t a, complex_t b) {
    return {nf_remainder(a.real, b.real), nf_remainder(a.imag, b.imag)};
  }

  friend constexpr bool operator==(complex_t a, complex_t b) { return a.real == b.real && a.imag == b.imag; }
  // By the real parts, then by the imaginary ones.
  friend constexpr bool operator<(complex_t a, complex_t b) {
    return a.real < b.real || (a.real == b.real && a.imag < b.imag);
  }
  friend constexpr bool operator>(complex_t a, complex_t b) { return b < a; }
  friend constexpr bool operator<=(complex_t a, complex_t b) { return a < b || a == b; }
  friend constexpr bool operator>=(complex_t a, complex_t b) { return b <= a; }

 private:
  static constexpr T nf_remainder(T a, T b) {
    const T rest = a - b * T(int64_t(a / b));
    return rest != T(0) && (rest < T(0)) != (b < T(0)) ? T(rest + b) : rest;
  }
};

// With a real number on one side: each would otherwise convert to the other.
#define NF_MIXED(op)                                         \
  template <class T, class Real>                             \
    requires nf_real_for<Real, T>                            \
  constexpr auto operator op(complex_t<T> a, Real b) {       \
    return a op complex_t<T>(b);                             \
  }                                                          \
  template <class T, class Real>                             \
    requires nf_real_for<Real, T>                            \
  constexpr auto operator op(Real a, complex_t<T> b) {       \
    return complex_t<T>(a) op b;                             \
  }
NF_MIXED(+)
NF_MIXED(-)
NF_MIXED(*)
NF_MIXED(/)
NF_MIXED(%)
NF_MIXED(==)
NF_MIXED(<)
NF_MIXED(>)
NF_MIXED(<=)
NF_MIXED(>=)
#undef NF_MIXED

using complex32_t = complex_t<half>;
using complex64_t = complex_t<float>;

}  // namespace metal
