/*---
op: qmatvec
target: cpu
tunables:
  ROWS: [1, 2, 4]
  PREFETCH: [0, 1024, 4096]
  THREADS: [2, 1, 4, 8]
launch: {threads: THREADS}
parent: vector
hypothesis: >
  The shift is a third of the integer work of decoding. A field that is masked in place is q * 2^shift; scaling
  x by 2^-shift when it is laid out undoes that exactly (powers of two), so the loop keeps mask, convert and
  multiply-add and comes nearer to the memory's bandwidth.
---*/
// helpers
using Rows = Packed<BITS, GROUP, K>;
// body
Staged<Rows, InPlace> staged;
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
