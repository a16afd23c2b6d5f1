// MSL's matrices: C columns of R elements. m[i] is column i.
#pragma once

#include "vector.h"

namespace metal {

template <class T, int C, int R>
struct matrix {
  vec<T, R> nf_columns[C];

  matrix() = default;
  NF_INLINE constexpr explicit matrix(T diagonal) : nf_columns{} {
    for (int i = 0; i < C && i < R; ++i) nf_columns[i][i] = diagonal;
  }
  template <class... V>
    requires(sizeof...(V) == C && (nf::Convertible<V, T, R> && ...))
  NF_INLINE constexpr matrix(const V&... columns) : nf_columns{vec<T, R>(columns)...} {}
  template <nf::Scalar... A>
    requires(sizeof...(A) == C * R)
  NF_INLINE constexpr matrix(A... a) : nf_columns{} {
    const T values[] = {static_cast<T>(a)...};
    for (int i = 0; i < C * R; ++i) nf_columns[i / R][i % R] = values[i];
  }
  template <class U>
    requires(!std::is_same_v<T, U>)
  NF_INLINE constexpr explicit matrix(const matrix<U, C, R>& other) : nf_columns{} {
    for (int i = 0; i < C; ++i) nf_columns[i] = vec<T, R>(other[i]);
  }

  NF_INLINE constexpr vec<T, R>& operator[](int i) {
    if (!std::is_constant_evaluated()) nf::judge_index<C>(i);
    return nf_columns[i];
  }
  NF_INLINE constexpr const vec<T, R>& operator[](int i) const {
    if (!std::is_constant_evaluated()) nf::judge_index<C>(i);
    return nf_columns[i];
  }
};

template <class T, int C, int R>
NF_FN constexpr vec<T, R> operator*(const matrix<T, C, R>& m, const vec<T, C>& v) {
  vec<T, R> sum = m[0] * v[0];
  for (int i = 1; i < C; ++i) sum += m[i] * v[i];
  return sum;
}
template <class T, int C, int R>
NF_FN constexpr vec<T, C> operator*(const vec<T, R>& v, const matrix<T, C, R>& m) {
  return transpose(m) * v;
}
template <class T, int C, int R, int D>
NF_FN constexpr matrix<T, D, R> operator*(const matrix<T, C, R>& a, const matrix<T, D, C>& b) {
  matrix<T, D, R> product(T(0));
  for (int i = 0; i < D; ++i) product[i] = a * b[i];
  return product;
}
template <class T, int C, int R, nf::Scalar A>
NF_FN constexpr matrix<T, C, R> operator*(matrix<T, C, R> m, A factor) {
  for (int i = 0; i < C; ++i) m[i] *= factor;
  return m;
}
template <class T, int C, int R, nf::Scalar A>
NF_FN constexpr matrix<T, C, R> operator*(A factor, const matrix<T, C, R>& m) {
  return m * factor;
}

#define NF_ELEMENTWISE(op)                                                                       \
  template <class T, int C, int R>                                                               \
  NF_FN constexpr matrix<T, C, R> operator op(matrix<T, C, R> a, const matrix<T, C, R>& b) {     \
    for (int i = 0; i < C; ++i) a[i] op##= b[i];                                                 \
    return a;                                                                                    \
  }                                                                                              \
  template <class T, int C, int R>                                                               \
  NF_FN constexpr matrix<T, C, R>& operator op##=(matrix<T, C, R>& a, const matrix<T, C, R>& b) { \
    return a = a op b;                                                                           \
  }
NF_ELEMENTWISE(+)
NF_ELEMENTWISE(-)
#undef NF_ELEMENTWISE

template <class T, int C, int R>
NF_FN constexpr matrix<T, R, C> transpose(const matrix<T, C, R>& m) {
  matrix<T, R, C> result(T(0));
  for (int i = 0; i < C; ++i)
    for (int j = 0; j < R; ++j) result[j][i] = m[i][j];
  return result;
}

// By minors of the first column.
template <class T, int N>
constexpr T determinant(const matrix<T, N, N>& m) {
  if constexpr (N == 2) {
    return m[0][0] * m[1][1] - m[1][0] * m[0][1];
  } else {
    T sum = T(0);
    for (int row = 0; row < N; ++row) {
      matrix<T, N - 1, N - 1> minor(T(0));
      for (int i = 1; i < N; ++i)
        for (int j = 0; j < N - 1; ++j) minor[i - 1][j] = m[i][j < row ? j : j + 1];
      sum += (row % 2 ? -m[0][row] : m[0][row]) * determinant(minor);
    }
    return sum;
  }
}

#define NF_NAMES(T)                \
  typedef matrix<T, 2, 2> T##2x2;  \
  typedef matrix<T, 2, 3> T##2x3;  \
  typedef matrix<T, 2, 4> T##2x4;  \
  typedef matrix<T, 3, 2> T##3x2;  \
  typedef matrix<T, 3, 3> T##3x3;  \
  typedef matrix<T, 3, 4> T##3x4;  \
  typedef matrix<T, 4, 2> T##4x2;  \
  typedef matrix<T, 4, 3> T##4x3;  \
  typedef matrix<T, 4, 4> T##4x4;
NF_NAMES(float)
NF_NAMES(half)
#undef NF_NAMES

}  // namespace metal
