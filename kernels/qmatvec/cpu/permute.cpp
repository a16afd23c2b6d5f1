/*---
op: qmatvec
target: cpu
tunables:
  ROWS: [1, 2, 4]
  PREFETCH: [0, 1024, 4096]
  THREADS: [2, 1, 4, 8]
launch: {threads: THREADS}
parent: vector
supports: {BITS: [4]}
requires: [__AVX512F__]
hypothesis: >
  A permutation of sixteen floats by the low four bits of each lane replaces mask and conversion by one
  instruction. It wins where vpermps runs beside the multiply-adds, and loses where it shares their port.
---*/
// helpers
#include <immintrin.h>
struct Decode {
    static constexpr float factor(int, int) { return 1.0f; }
    template <int B, int J>
    static vfloat field(const vuint* words) {
        // The permutation looks at an index's low four bits alone: the shifted word needs no mask.
        const __m512 values = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        return vfloat(_mm512_permutexvar_ps(__m512i(words[0] >> 4 * J), values));
    }
};
using Rows = Packed<BITS, GROUP, K>;
// body
Staged<Rows, Decode> staged;
in_pieces(share(m * N, thread, n_threads), N, [&](long token, Range outputs) {
    staged.stage(x + token * K);
    in_steps_of<ROWS>(outputs, [&](auto rows, long n) {
        PackedRow<S> packed[rows];
        for (int i = 0; i < rows; ++i) packed[i] = PackedRow<S>::of<Rows>(w, scales, biases, n + i);
        float dots[rows][1];
        packed_dots<1, PREFETCH>(&staged, packed, dots);
        for (int i = 0; i < rows; ++i) y[token * N + n + i] = from_float<T>(dots[i][0]);
    });
});
