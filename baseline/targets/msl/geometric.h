// MSL's <metal_geometric>: vectors as points of space. Halves and bfloats are summed in float and rounded once.
#pragma once

#include "math.h"

namespace metal {
namespace nf {

template <class A>
using floats = vec<float, shape<A>::n>;
template <class A>
using floating_element = floating<element<A>>;

template <int N>
NF_FN constexpr float dot_of(vec<float, N> a, vec<float, N> b) {
  float sum = a.x * b.x + a.y * b.y;
  if constexpr (N > 2) sum += a[2] * b[2];
  if constexpr (N > 3) sum += a[3] * b[3];
  return sum;
}

}  // namespace nf

template <nf::Vector A, nf::Vector B>
  requires nf::Agreeing<A, B>
NF_FN constexpr auto dot(A a, B b) {
  using T = nf::element<A>;
  if constexpr (nf::Integer<T>) {
    const auto product = nf::plain(a * b);
    T sum = static_cast<T>(product.x + product.y);
    if constexpr (nf::shape<A>::n > 2) sum = static_cast<T>(sum + product[2]);
    if constexpr (nf::shape<A>::n > 3) sum = static_cast<T>(sum + product[3]);
    return sum;
  } else {
    return static_cast<T>(nf::dot_of(nf::floats<A>(a), nf::floats<B>(b)));
  }
}

template <nf::Vector A, nf::Vector B>
  requires(nf::Agreeing<A, B> && nf::shape<A>::n == 3)
NF_FN constexpr auto cross(A a, B b) {
  const nf::floats<A> u(a), v(b);
  return vec<nf::element<A>, 3>(u.y * v.z - u.z * v.y, u.z * v.x - u.x * v.z, u.x * v.y - u.y * v.x);
}

template <nf::Vector A>
NF_FN constexpr auto length_squared(A a) {
  return dot(a, a);
}
template <nf::Vector A>
NF_FN auto length(A a) {
  const nf::floats<A> v(a);
  return static_cast<nf::floating_element<A>>(std::sqrt(nf::dot_of(v, v)));
}
template <class A, class B>
  requires nf::Operands<A, B>
NF_FN constexpr auto distance_squared(A a, B b) {
  return length_squared(a - b);
}
template <class A, class B>
  requires nf::Operands<A, B>
NF_FN auto distance(A a, B b) {
  return length(a - b);
}

template <nf::Vector A>
NF_FN auto normalize(A a) {
  const nf::floats<A> v(a);
  return vec<nf::element<A>, nf::shape<A>::n>(v * (1.0f / std::sqrt(nf::dot_of(v, v))));
}

// `incident` thrown back by a surface with this normal, whose length is 1.
template <nf::Vector A, nf::Vector B>
  requires nf::Agreeing<A, B>
NF_FN constexpr auto reflect(A incident, B normal) {
  const nf::floats<A> i(incident), n(normal);
  return vec<nf::element<A>, nf::shape<A>::n>(i - n * (2 * nf::dot_of(n, i)));
}

template <nf::Vector A, nf::Vector B, nf::Vector C>
  requires nf::Agreeing<A, B, C>
NF_FN constexpr auto faceforward(A normal, B incident, C reference) {
  return dot(reference, incident) < 0 ? nf::plain(normal) : -nf::plain(normal);
}

}  // namespace metal
