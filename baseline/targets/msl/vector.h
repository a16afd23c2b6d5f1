// MSL's vectors: vec<T, 2>, vec<T, 3>, vec<T, 4> with their sizes and alignments, constructors, element-wise operators
// and swizzles. An operator takes two vectors of one type, or a vector and a scalar, which becomes an element's type.
#pragma once

#include <initializer_list>

#include "swizzle.h"

namespace metal {
namespace nf {

// A vector's bytes, trivial to copy. Three elements take the room of four.
template <class T, int N>
struct alignas(sizeof(T) * (N == 3 ? 4 : N)) raw {
  std::conditional_t<is_bfloat<T>, std::uint16_t, T> e[N];
};

template <int I, class A>
NF_FN constexpr auto lane(const A& a) {
  if constexpr (Vector<A>) {
    return a.template nf_get<I>();
  } else {
    return a;
  }
}

// Element I of the concatenation of values.
template <int I, class First, class... Rest>
NF_FN constexpr auto pick(const First& first, const Rest&... rest) {
  constexpr int n = shape<First>::n;
  if constexpr (I < n) {
    return lane<I>(first);
  } else {
    return pick<I - n>(rest...);
  }
}

// Where -fsanitize=bounds finds an index outside of N elements: a reference to the one behind the last it lets pass.
struct vector_element {
  bool stands_for_nothing;
};
template <int N, class I>
NF_FN void judge_index(I i) {
  static constexpr vector_element elements[N] = {};
  if (elements[i].stands_for_nothing) __builtin_unreachable();
}

template <int N, class... A>
concept Parts = sizeof...(A) > 1 && (Value<A> && ...) && (shape<A>::n + ...) == N;

template <class A, class T, int N>
concept Convertible = Vector<A> && shape<A>::n == N;

}  // namespace nf

#define NF_SWIZZLE(name, ...) nf::swizzle_of<T, nf_n, __VA_ARGS__> name;

// What the three sizes have in common. Copies are not the implicit ones: for a type that is trivial to copy, GCC lets a
// call read its argument from memory, and write its result there, without a hook. One access copies all elements, so
// that the sanitizer sees the vector's alignment.
#define NF_VEC_MEMBERS                                                                           \
  vec() = default;                                                                               \
  NF_INLINE constexpr vec(const vec& other) { *this = other; }                                   \
  NF_INLINE constexpr vec& operator=(const vec& other) {                                         \
    if (std::is_constant_evaluated()) {                                                          \
      nf_copy(other);                                                                            \
    } else {                                                                                     \
      nf_raw = other.nf_raw;                                                                     \
    }                                                                                            \
    return *this;                                                                                \
  }                                                                                              \
  NF_INLINE constexpr explicit vec(const nf::raw<T, nf_n>& other) : nf_raw(other) {}             \
  template <nf::Convertible<T, nf_n> A>                                                          \
  NF_INLINE constexpr explicit(!nf::Assignable<A, T, nf_n>) vec(const A& a) : vec(nf::none{}, a) {} \
  template <nf::Integer I>                                                                       \
  NF_INLINE constexpr T& operator[](I i) {                                                       \
    if (std::is_constant_evaluated()) return nf_at(*this, i);                                    \
    nf::judge_index<nf_n>(i);                                                                    \
    return nf_e[i];                                                                              \
  }                                                                                              \
  template <nf::Integer I>                                                                       \
  NF_INLINE constexpr const T& operator[](I i) const {                                           \
    if (std::is_constant_evaluated()) return nf_at(*this, i);                                    \
    nf::judge_index<nf_n>(i);                                                                    \
    return nf_e[i];                                                                              \
  }                                                                                              \
  template <int I>                                                                               \
  NF_INLINE constexpr T nf_get() const {                                                         \
    return nf_at(*this, I);                                                                      \
  }

template <class T>
struct vec<T, 2> {
  static constexpr int nf_n = 2;
  union {
    nf::raw<T, 2> nf_raw;
    T nf_e[2];
    struct {
      T x, y;
    };
    struct {
      T r, g;
    };
    NF_SWIZZLES(NF_SWIZZLE)
  };
  NF_VEC_MEMBERS

  template <nf::Scalar A>
  NF_INLINE constexpr vec(A a) : x(static_cast<T>(a)), y(static_cast<T>(a)) {}
  template <class... A>
    requires nf::Parts<2, A...>
  NF_INLINE constexpr vec(const A&... a)
      : x(static_cast<T>(nf::pick<0>(a...))),
        y(static_cast<T>(nf::pick<1>(a...))) {}

 private:
  NF_INLINE constexpr void nf_copy(const vec& v) { x = v.x, y = v.y; }
  template <class A>
  NF_INLINE constexpr vec(nf::none, const A& a)
      : x(static_cast<T>(nf::lane<0>(a))),
        y(static_cast<T>(nf::lane<1>(a))) {}
  template <class V>
  NF_INLINE static constexpr auto& nf_at(V& v, int i) {
    return i == 0 ? v.x : v.y;
  }
};

template <class T>
struct vec<T, 3> {
  static constexpr int nf_n = 3;
  union {
    nf::raw<T, 3> nf_raw;
    T nf_e[3];
    struct {
      T x, y, z;
    };
    struct {
      T r, g, b;
    };
    NF_SWIZZLES(NF_SWIZZLE)
  };
  NF_VEC_MEMBERS

  template <nf::Scalar A>
  NF_INLINE constexpr vec(A a) : x(static_cast<T>(a)), y(static_cast<T>(a)), z(static_cast<T>(a)) {}
  template <class... A>
    requires nf::Parts<3, A...>
  NF_INLINE constexpr vec(const A&... a)
      : x(static_cast<T>(nf::pick<0>(a...))),
        y(static_cast<T>(nf::pick<1>(a...))),
        z(static_cast<T>(nf::pick<2>(a...))) {}

 private:
  NF_INLINE constexpr void nf_copy(const vec& v) { x = v.x, y = v.y, z = v.z; }
  template <class A>
  NF_INLINE constexpr vec(nf::none, const A& a)
      : x(static_cast<T>(nf::lane<0>(a))),
        y(static_cast<T>(nf::lane<1>(a))),
        z(static_cast<T>(nf::lane<2>(a))) {}
  template <class V>
  NF_INLINE static constexpr auto& nf_at(V& v, int i) {
    return i == 0 ? v.x : i == 1 ? v.y : v.z;
  }
};

template <class T>
struct vec<T, 4> {
  static constexpr int nf_n = 4;
  union {
    nf::raw<T, 4> nf_raw;
    T nf_e[4];
    struct {
      T x, y, z, w;
    };
    struct {
      T r, g, b, a;
    };
    NF_SWIZZLES(NF_SWIZZLE)
  };
  NF_VEC_MEMBERS

  template <nf::Scalar A>
  NF_INLINE constexpr vec(A a)
      : x(static_cast<T>(a)), y(static_cast<T>(a)), z(static_cast<T>(a)), w(static_cast<T>(a)) {}
  template <class... A>
    requires nf::Parts<4, A...>
  NF_INLINE constexpr vec(const A&... a)
      : x(static_cast<T>(nf::pick<0>(a...))),
        y(static_cast<T>(nf::pick<1>(a...))),
        z(static_cast<T>(nf::pick<2>(a...))),
        w(static_cast<T>(nf::pick<3>(a...))) {}

 private:
  NF_INLINE constexpr void nf_copy(const vec& v) { x = v.x, y = v.y, z = v.z, w = v.w; }
  template <class A>
  NF_INLINE constexpr vec(nf::none, const A& a)
      : x(static_cast<T>(nf::lane<0>(a))),
        y(static_cast<T>(nf::lane<1>(a))),
        z(static_cast<T>(nf::lane<2>(a))),
        w(static_cast<T>(nf::lane<3>(a))) {}
  template <class V>
  NF_INLINE static constexpr auto& nf_at(V& v, int i) {
    return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
  }
};

#undef NF_VEC_MEMBERS

#define NF_NAMES(name, T)      \
  typedef vec<T, 2> name##2;   \
  typedef vec<T, 3> name##3;   \
  typedef vec<T, 4> name##4;
NF_NAMES(float, float)
NF_NAMES(half, half)
NF_NAMES(bfloat, bfloat)
NF_NAMES(bool, bool)
NF_NAMES(char, std::int8_t)
NF_NAMES(uchar, uchar)
NF_NAMES(short, short)
NF_NAMES(ushort, ushort)
NF_NAMES(int, int)
NF_NAMES(uint, uint)
NF_NAMES(long, long)
NF_NAMES(ulong, ulong)
#undef NF_NAMES

namespace nf {

template <class A, class... B>
struct mix_all {
  using type = A;
};
template <class A, class B, class... C>
struct mix_all<A, B, C...> : mix_all<mix<A, B>, C...> {};

constexpr int largest(std::initializer_list<int> numbers) {
  int result = 0;
  for (int number : numbers) result = number > result ? number : result;
  return result;
}

// What a function of several values, vectors and scalars in any mixture, works on: vectors must agree in type, and
// scalars become the type of their elements.
template <class... A>
struct common {
  static constexpr int n = largest({shape<A>::n...});
  using element =
      typename std::conditional_t<n == 1, mix_all<nf::element<A>...>,
                                  mix_all<std::conditional_t<Vector<A>, nf::element<A>, none>...>>::type;
  static constexpr bool agree =
      ((Scalar<A> || (shape<A>::n == n && std::is_same_v<nf::element<A>, element>)) && ...);
};

template <class... A>
concept Agreeing = (Value<A> && ...) && common<A...>::agree;
template <class... A>
concept Operands = (Vector<A> || ...) && Agreeing<A...>;
template <class... A>
using element_of = typename common<A...>::element;

// f of each element, its result made of type R; a scalar counts for every element.
template <class R, class F, class... A>
NF_FN constexpr auto map_mixed(F f, const A&... a) {
  constexpr int n = largest({shape<A>::n...});
  if constexpr (n == 1) {
    return static_cast<R>(f(a...));
  } else if constexpr (n == 2) {
    return vec<R, 2>(static_cast<R>(f(lane<0>(a)...)), static_cast<R>(f(lane<1>(a)...)));
  } else if constexpr (n == 3) {
    return vec<R, 3>(static_cast<R>(f(lane<0>(a)...)), static_cast<R>(f(lane<1>(a)...)),
                     static_cast<R>(f(lane<2>(a)...)));
  } else {
    return vec<R, 4>(static_cast<R>(f(lane<0>(a)...)), static_cast<R>(f(lane<1>(a)...)),
                     static_cast<R>(f(lane<2>(a)...)), static_cast<R>(f(lane<3>(a)...)));
  }
}

// The same, with the arguments made of type In.
template <class R, class In, class F, class... A>
NF_FN constexpr auto map(F f, const A&... a) {
  return map_mixed<R>([&](auto... x) NF_INLINE { return f(static_cast<In>(x)...); }, a...);
}

}  // namespace nf

#define NF_BINARY(op)                                                                      \
  template <class A, class B>                                                              \
    requires nf::Operands<A, B>                                                            \
  NF_FN constexpr auto operator op(A a, B b) {                                             \
    using T = nf::element_of<A, B>;                                                        \
    return nf::map<T, T>([](T x, T y) NF_INLINE { return static_cast<T>(x op y); }, a, b); \
  }                                                                                        \
  template <class T, int N, class B>                                                       \
    requires nf::Assignable<B, T, N>                                                       \
  NF_FN constexpr vec<T, N>& operator op##=(vec<T, N>& a, B b) {                           \
    return a = a op b;                                                                     \
  }
NF_BINARY(+)
NF_BINARY(-)
NF_BINARY(*)
NF_BINARY(/)
NF_BINARY(%)
NF_BINARY(&)
NF_BINARY(|)
NF_BINARY(^)
NF_BINARY(<<)
NF_BINARY(>>)
#undef NF_BINARY

#define NF_PREDICATE(op)                                                         \
  template <class A, class B>                                                    \
    requires nf::Operands<A, B>                                                  \
  NF_FN constexpr auto operator op(A a, B b) {                                   \
    using T = nf::element_of<A, B>;                                              \
    return nf::map<bool, T>([](T x, T y) NF_INLINE { return x op y; }, a, b);    \
  }
NF_PREDICATE(==)
NF_PREDICATE(!=)
NF_PREDICATE(<)
NF_PREDICATE(<=)
NF_PREDICATE(>)
NF_PREDICATE(>=)
NF_PREDICATE(&&)
NF_PREDICATE(||)
#undef NF_PREDICATE

#define NF_UNARY(op, R)                                                                  \
  template <nf::Vector A>                                                                \
  NF_FN constexpr auto operator op(A a) {                                                \
    using T = nf::element<A>;                                                            \
    return nf::map<R, T>([](T x) NF_INLINE { return static_cast<R>(op x); }, a);         \
  }
NF_UNARY(+, T)
NF_UNARY(-, T)
NF_UNARY(~, T)
NF_UNARY(!, bool)
#undef NF_UNARY

template <class T, int N>
NF_FN constexpr vec<T, N>& operator++(vec<T, N>& a) {
  return a += 1;
}
template <class T, int N>
NF_FN constexpr vec<T, N>& operator--(vec<T, N>& a) {
  return a -= 1;
}
template <class T, int N>
NF_FN constexpr vec<T, N> operator++(vec<T, N>& a, int) {
  const vec<T, N> before = a;
  a += 1;
  return before;
}
template <class T, int N>
NF_FN constexpr vec<T, N> operator--(vec<T, N>& a, int) {
  const vec<T, N> before = a;
  a -= 1;
  return before;
}

// ---- as_type ----------------------------------------------------------------------------------------

namespace nf {

// A type that std::bit_cast takes, and how a value becomes one.
template <class A>
struct bytes_of {
  using type = A;
  static constexpr A of(A a) { return a; }
  static constexpr A from(type bytes) { return bytes; }
};
template <>
struct bytes_of<bfloat> {
  using type = std::uint16_t;
  static constexpr type of(bfloat a) { return a.nf_bits; }
  static constexpr bfloat from(type bytes) { return bfloat::nf_of_bits(bytes); }
};
template <Vector A>
struct bytes_of<A> {
  using type = raw<element<A>, shape<A>::n>;
  static constexpr type of(A a) { return plain(a).nf_raw; }
  static constexpr A from(type bytes) { return A(vec<element<A>, shape<A>::n>(bytes)); }
};

}  // namespace nf

// The same bits as another type of the same size.
template <class To, class From>
NF_FN constexpr To as_type(From from) {
  using Bytes = typename nf::bytes_of<To>::type;
  static_assert(sizeof(To) == sizeof(typename nf::bytes_of<From>::type), "as_type needs two types of one size");
  return nf::bytes_of<To>::from(std::bit_cast<Bytes>(nf::bytes_of<From>::of(from)));
}

}  // namespace metal
