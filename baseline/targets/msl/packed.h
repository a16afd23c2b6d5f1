// MSL's packed vectors: aligned as one element, without padding. Arithmetic turns them into plain vectors.
// Copies are not the implicit ones, as in vector.h.
#pragma once

#include "vector.h"

namespace metal {

#define NF_PACKED_MEMBERS                                                               \
  packed_vec() = default;                                                               \
  NF_INLINE constexpr packed_vec(const packed_vec& other) : packed_vec(vec<T, nf_n>(other), nf::none{}) {} \
  NF_INLINE packed_vec& operator=(const packed_vec& other) {                            \
    for (int i = 0; i < nf_n; ++i) nf_e[i] = other.nf_e[i];                             \
    return *this;                                                                       \
  }                                                                                     \
  template <nf::Assignable<T, nf_n> A>                                                  \
  NF_INLINE constexpr packed_vec(A a) : packed_vec(vec<T, nf_n>(a), nf::none{}) {}      \
  template <class... A>                                                                 \
    requires nf::Parts<nf_n, A...>                                                      \
  NF_INLINE constexpr packed_vec(const A&... a) : packed_vec(vec<T, nf_n>(a...)) {}     \
  template <nf::Convertible<T, nf_n> A>                                                 \
    requires(!nf::Assignable<A, T, nf_n>)                                               \
  NF_INLINE constexpr explicit packed_vec(const A& a) : packed_vec(vec<T, nf_n>(a)) {}  \
  template <nf::Integer I>                                                              \
  NF_INLINE T& operator[](I i) {                                                        \
    return nf_e[i];                                                                     \
  }                                                                                     \
  template <nf::Integer I>                                                              \
  NF_INLINE const T& operator[](I i) const {                                            \
    return nf_e[i];                                                                     \
  }

template <class T, int N>
struct packed_vec;

template <class T>
struct packed_vec<T, 2> {
  static constexpr int nf_n = 2;
  union {
    T nf_e[2];
    struct {
      T x, y;
    };
    NF_SWIZZLES(NF_SWIZZLE)
  };
  NF_PACKED_MEMBERS
  template <int I>
  NF_INLINE constexpr T nf_get() const {
    return I == 0 ? x : y;
  }

 private:
  NF_INLINE constexpr packed_vec(vec<T, 2> v, nf::none) : x(v.x), y(v.y) {}
};

template <class T>
struct packed_vec<T, 3> {
  static constexpr int nf_n = 3;
  union {
    T nf_e[3];
    struct {
      T x, y, z;
    };
    NF_SWIZZLES(NF_SWIZZLE)
  };
  NF_PACKED_MEMBERS
  template <int I>
  NF_INLINE constexpr T nf_get() const {
    return I == 0 ? x : I == 1 ? y : z;
  }

 private:
  NF_INLINE constexpr packed_vec(vec<T, 3> v, nf::none) : x(v.x), y(v.y), z(v.z) {}
};

template <class T>
struct packed_vec<T, 4> {
  static constexpr int nf_n = 4;
  union {
    T nf_e[4];
    struct {
      T x, y, z, w;
    };
    NF_SWIZZLES(NF_SWIZZLE)
  };
  NF_PACKED_MEMBERS
  template <int I>
  NF_INLINE constexpr T nf_get() const {
    return I == 0 ? x : I == 1 ? y : I == 2 ? z : w;
  }

 private:
  NF_INLINE constexpr packed_vec(vec<T, 4> v, nf::none) : x(v.x), y(v.y), z(v.z), w(v.w) {}
};
#undef NF_PACKED_MEMBERS
#undef NF_SWIZZLE

namespace nf {

template <class T, int N>
struct shape<packed_vec<T, N>> {
  static constexpr int n = N;
  using element = canonical<T>;
};

}  // namespace nf

#define NF_COMPOUND(op)                                                   \
  template <class T, int N, class B>                                      \
    requires nf::Assignable<B, T, N>                                      \
  NF_FN constexpr packed_vec<T, N>& operator op##=(packed_vec<T, N>& a, B b) { \
    return a = a op b;                                                    \
  }
NF_COMPOUND(+)
NF_COMPOUND(-)
NF_COMPOUND(*)
NF_COMPOUND(/)
NF_COMPOUND(%)
NF_COMPOUND(&)
NF_COMPOUND(|)
NF_COMPOUND(^)
NF_COMPOUND(<<)
NF_COMPOUND(>>)
#undef NF_COMPOUND

#define NF_NAMES(name, T)                   \
  typedef packed_vec<T, 2> packed_##name##2; \
  typedef packed_vec<T, 3> packed_##name##3; \
  typedef packed_vec<T, 4> packed_##name##4;
NF_NAMES(float, float)
NF_NAMES(half, half)
NF_NAMES(bfloat, bfloat)
NF_NAMES(char, std::int8_t)
NF_NAMES(uchar, uchar)
NF_NAMES(short, short)
NF_NAMES(ushort, ushort)
NF_NAMES(int, int)
NF_NAMES(uint, uint)
NF_NAMES(long, long)
NF_NAMES(ulong, ulong)
#undef NF_NAMES

}  // namespace metal
