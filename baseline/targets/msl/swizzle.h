// Swizzles of more than one letter: v.xy, v.zyx = w, v.xxxx. To keep the compile time low only those exist that the
// source names. The translator scans the source and defines, before the first #include, one macro for all of them:
//
//     #define NF_SWIZZLES(S) S(xy, 0, 1) S(zyx, 2, 1, 0) S(bgra, 2, 1, 0, 3)
//
// each entry with its name and the index of each letter (x, r: 0; y, g: 1; z, b: 2; w, a: 3). Not defined: none. They
// become members of vec<T, 2>, vec<T, 3> and vec<T, 4>; one whose letters a vector lacks is a member of no use there.
#pragma once

#include "types.h"

#ifndef NF_SWIZZLES
#define NF_SWIZZLES(S)
#else
#define NF_HAS_SWIZZLES
#endif

namespace metal {

template <class T, int N>
struct vec;

namespace nf {

// Metal has one signed type of 8 bits, C++ two: `char` stands for the other in vectors.
template <class T>
using canonical = std::conditional_t<std::is_same_v<T, char>, std::int8_t, T>;

// How many elements a value has and of what type; a scalar is the one element that it has.
template <class A>
struct shape {
  static constexpr int n = 1;
  using element = A;
};
template <class T, int N>
struct shape<vec<T, N>> {
  static constexpr int n = N;
  using element = canonical<T>;
};
template <class A>
using element = typename shape<A>::element;

template <class A>
concept Vector = (shape<A>::n > 1);
template <class A>
concept Value = Scalar<A> || Vector<A>;

// What can be assigned to a vector of N elements of type T.
template <class A, class T, int N>
concept Assignable = Scalar<A> || (shape<A>::n == N && std::is_same_v<element<A>, canonical<T>>);

// The vector of which a swizzle (or a packed vector) is another form; a scalar stays one.
template <Vector A>
NF_FN constexpr auto plain(A a) {
  return vec<element<A>, shape<A>::n>(a);
}
template <Scalar A>
NF_FN constexpr A plain(A a) {
  return a;
}
template <class A>
using plain_t = decltype(plain(std::declval<A>()));

}  // namespace nf

namespace nf {

// A swizzle shares the storage of the whole vector. Each letter is the element behind those that it skips, so that
// `auto a = v.zw; a.x` is v.z.
#define NF_LETTER(letter, I)  \
  struct {                    \
    T nf_before_##letter[I];  \
    T letter;                 \
  };
template <class T, int N, int... I>
struct swizzle_storage;
template <class T, int N, int X, int Y>
struct swizzle_storage<T, N, X, Y> {
  union {
    T nf_e[N];
    NF_LETTER(x, X) NF_LETTER(y, Y)
  };
};
template <class T, int N, int X, int Y, int Z>
struct swizzle_storage<T, N, X, Y, Z> {
  union {
    T nf_e[N];
    NF_LETTER(x, X) NF_LETTER(y, Y) NF_LETTER(z, Z)
  };
};
template <class T, int N, int X, int Y, int Z, int W>
struct swizzle_storage<T, N, X, Y, Z, W> {
  union {
    T nf_e[N];
    NF_LETTER(x, X) NF_LETTER(y, Y) NF_LETTER(z, Z) NF_LETTER(w, W)
  };
};
#undef NF_LETTER

}  // namespace nf

// Here and not in nf, for the sake of argument-dependent lookup of the operators.
template <class T, int N, int... I>
struct nf_swizzle : nf::swizzle_storage<T, N, I...> {
  static constexpr int n = sizeof...(I);
  static constexpr int at[n] = {I...};
  using nf::swizzle_storage<T, N, I...>::nf_e;

  nf_swizzle() = default;

  // Never the implicit ones, which would read and write the elements that the swizzle does not name.
  NF_INLINE nf_swizzle(const nf_swizzle& other) { ((nf_e[I] = other.nf_e[I]), ...); }
  NF_INLINE constexpr nf_swizzle& operator=(const nf_swizzle& other) { return nf_assign(vec<T, n>(other)); }
  template <nf::Assignable<T, n> A>
  NF_INLINE constexpr nf_swizzle& operator=(A a) {
    return nf_assign(vec<T, n>(a));
  }

  template <int K>
  NF_INLINE constexpr T nf_get() const {
    return nf_e[at[K]];
  }
  template <nf::Integer K>
  NF_INLINE constexpr T& operator[](K k) {
    return nf_e[at[k]];
  }
  template <nf::Integer K>
  NF_INLINE constexpr const T& operator[](K k) const {
    return nf_e[at[k]];
  }

#define NF_COMPOUND(op)                                   \
  template <nf::Assignable<T, n> A>                           \
  NF_INLINE constexpr nf_swizzle& operator op##=(A a) {      \
    return nf_assign(vec<T, n>(*this) op vec<T, n>(a));   \
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

 private:
  NF_INLINE constexpr nf_swizzle& nf_assign(vec<T, n> value) {
    int k = 0;
    ((nf_e[I] = value[k++]), ...);
    return *this;
  }
};

namespace nf {

template <class T, int N, int... I>
struct shape<nf_swizzle<T, N, I...>> {
  static constexpr int n = sizeof...(I);
  using element = canonical<T>;
};

template <class A>
inline constexpr bool is_swizzle = false;
template <class T, int N, int... I>
inline constexpr bool is_swizzle<nf_swizzle<T, N, I...>> = true;

template <class T, int N, int... I>
using swizzle_of = std::conditional_t<((I < N) && ...), nf_swizzle<T, N, I...>, none>;

}  // namespace nf

// What the translator puts behind a swizzle that is read: `v.xy->*nf_plain` is a vector, as Metal has it. It binds more
// tightly than what may follow and less tightly than what may stand before. Const, so that nobody assigns to the copy.
// A member that is no swizzle but has the name of one stays what it is.
struct nf_plainly {};
inline constexpr nf_plainly nf_plain;
template <class A>
  requires nf::is_swizzle<std::remove_cvref_t<A>>
NF_FN constexpr auto operator->*(A&& a, nf_plainly) -> const decltype(nf::plain(a)) {
  return decltype(nf::plain(a))(a);
}
template <class A>
  requires(!nf::is_swizzle<std::remove_cvref_t<A>>)
NF_FN constexpr A operator->*(A&& a, nf_plainly) {
  return static_cast<A&&>(a);
}

}  // namespace metal
