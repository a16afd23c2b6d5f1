// 8x8 matrices that the 32 threads of a SIMD group hold together, two neighbours in a row each.
#pragma once

#include <cstddef>

#include "simd.h"
#include "sync.h"
#include "types.h"
#include "vector.h"

namespace metal {

// ---- which lane holds what -------------------------------------------------------------------------

// A lane's bits are, from the top: row / 4, column / 4, row % 4 (two bits), column / 2 % 2. Apple documents no layout;
// this is the one that MLX's matrix kernels count on.
constexpr int nf_matrix_row(int lane) { return (lane >> 2 & 4) + (lane >> 1 & 3); }
constexpr int nf_matrix_column(int lane) { return (lane >> 1 & 4) + (lane & 1) * 2; }
constexpr int nf_matrix_lane(int row, int column) {
  return (row & 4) << 2 | (column & 4) << 1 | (row & 3) << 1 | (column >> 1 & 1);
}

NF_UNSEEN int nf_matrix_self() { return int(nf_self()->index_in_threadgroup % 32); }

// ---- the type --------------------------------------------------------------------------------------

// An argument that knows where the call is, for operators: they can have no arguments by default.
template <class Matrix>
struct nf_operand {
  const Matrix& matrix;
  const char* file;
  int line;

  NF_UNSEEN nf_operand(const Matrix& matrix, NF_CALLER) : matrix(matrix), file(file), line(line) {}
};

template <class T, int Columns, int Rows = Columns>
struct simdgroup_matrix {
  static_assert(Columns == 8 && Rows == 8, "Metal has SIMD-group matrices of 8x8 only");

  simdgroup_matrix() = default;

  // `diagonal` times the identity.
  NF_UNSEEN simdgroup_matrix(T diagonal) {
    const int lane = nf_matrix_self();
    for (int i = 0; i < 2; ++i) {
      elements[i] = nf_matrix_row(lane) == nf_matrix_column(lane) + i ? diagonal : T(0);
    }
  }

  vec<T, 2>& thread_elements() { return elements; }
  const vec<T, 2>& thread_elements() const { return elements; }

  friend NF_UNSEEN simdgroup_matrix operator*(const simdgroup_matrix& a, nf_operand<simdgroup_matrix> b) {
    simdgroup_matrix product;
    simdgroup_multiply(product, a, b.matrix, b.file, b.line);
    return product;
  }
  friend simdgroup_matrix operator+(simdgroup_matrix a, const simdgroup_matrix& b) {
    a.elements += b.elements;
    return a;
  }
  friend simdgroup_matrix operator-(simdgroup_matrix a, const simdgroup_matrix& b) {
    a.elements -= b.elements;
    return a;
  }

 private:
  vec<T, 2> elements;
};

using simdgroup_float8x8 = simdgroup_matrix<float, 8, 8>;
using simdgroup_half8x8 = simdgroup_matrix<half, 8, 8>;
using simdgroup_bfloat8x8 = simdgroup_matrix<bfloat, 8, 8>;

template <class T, int Columns, int Rows = Columns>
NF_UNSEEN simdgroup_matrix<T, Columns, Rows> make_filled_simdgroup_matrix(T value) {
  simdgroup_matrix<T, Columns, Rows> matrix;
  matrix.thread_elements() = vec<T, 2>(value, value);
  return matrix;
}

// ---- memory ----------------------------------------------------------------------------------------

// Where the i-th element of this thread lies. `origin` is (column, row) of the matrix in the larger one at hand, after
// transposition if `transpose`.
NF_UNSEEN size_t nf_matrix_offset(int i, ulong elements_per_row, ulong2 origin, bool transpose) {
  const int lane = nf_matrix_self();
  const size_t column = origin[0] + nf_matrix_column(lane) + i, row = origin[1] + nf_matrix_row(lane);
  return transpose ? column * elements_per_row + row : row * elements_per_row + column;
}

// Finds out whether the whole SIMD group is here.
NF_UNSEEN void nf_meet(const char* function, const char* file, int line) {
  nf_lanes<bool, 32>(true, function, file, line);
}

// Inlined, and with the compiler's hooks, so that an access to memory is one of the kernel's line.
template <class T>
__attribute__((always_inline)) inline void simdgroup_load(simdgroup_matrix<T, 8, 8>& d, const nf_same<T>* source,
                                                          ulong elements_per_row = 8, ulong2 matrix_origin = ulong2(0),
                                                          bool transpose_matrix = false, NF_CALLER) {
  nf_meet("simdgroup_load", file, line);
  for (int i = 0; i < 2; ++i) {
    d.thread_elements()[i] = source[nf_matrix_offset(i, elements_per_row, matrix_origin, transpose_matrix)];
  }
}

template <class T>
__attribute__((always_inline)) inline void simdgroup_store(const simdgroup_matrix<T, 8, 8>& a, nf_same<T>* destination,
                                                           ulong elements_per_row = 8, ulong2 matrix_origin = ulong2(0),
                                                           bool transpose_matrix = false, NF_CALLER) {
  nf_meet("simdgroup_store", file, line);
  for (int i = 0; i < 2; ++i) {
    destination[nf_matrix_offset(i, elements_per_row, matrix_origin, transpose_matrix)] = a.thread_elements()[i];
  }
}

// ---- arithmetic ------------------------------------------------------------------------------------

template <class A, class B>
struct nf_fragments {
  A a[2];
  B b[2];
};

// This thread's two elements of c + a * b, summed in float in the order of a's columns; rounded once, to D. What a GPU
// rounds in between is not documented.
template <class D, class A, class B>
NF_UNSEEN void nf_multiply(simdgroup_matrix<D, 8, 8>& d, const simdgroup_matrix<A, 8, 8>& a,
                           const simdgroup_matrix<B, 8, 8>& b, const float* c, const char* function, const char* file,
                           int line) {
  const vec<A, 2>& mine_a = a.thread_elements();
  const vec<B, 2>& mine_b = b.thread_elements();
  using Fragments = nf_fragments<A, B>;
  const nf_lanes<Fragments, 32> lanes(Fragments{{mine_a[0], mine_a[1]}, {mine_b[0], mine_b[1]}}, function, file, line);
  const int row = nf_matrix_row(lanes.self), column = nf_matrix_column(lanes.self);
  for (int i = 0; i < 2; ++i) {
    float sum = c[i];
    for (int k = 0; k < 8; ++k) {
      const A left = lanes[nf_matrix_lane(row, k)].a[k % 2];
      sum += float(left) * float(lanes[nf_matrix_lane(k, column)].b[i]);
    }
    d.thread_elements()[i] = D(sum);
  }
}

template <class D, class A, class B>
NF_UNSEEN void simdgroup_multiply(simdgroup_matrix<D, 8, 8>& d, const simdgroup_matrix<A, 8, 8>& a,
                                  const simdgroup_matrix<B, 8, 8>& b, NF_CALLER) {
  const float zero[2] = {0, 0};
  nf_multiply(d, a, b, zero, "simdgroup_multiply", file, line);
}

template <class D, class A, class B, class C>
NF_UNSEEN void simdgroup_multiply_accumulate(simdgroup_matrix<D, 8, 8>& d, const simdgroup_matrix<A, 8, 8>& a,
                                             const simdgroup_matrix<B, 8, 8>& b, const simdgroup_matrix<C, 8, 8>& c,
                                             NF_CALLER) {
  const float start[2] = {float(c.thread_elements()[0]), float(c.thread_elements()[1])};
  nf_multiply(d, a, b, start, "simdgroup_multiply_accumulate", file, line);
}

}  // namespace metal
