/*---
op: qmatvec
target: cpu
tunables:
  ROWS: [1, 2, 4]
  PREFETCH: [0, 1024, 4096]
  THREADS: [2, 1, 4, 8]
launch: {threads: THREADS}
parent: plain
hypothesis: >
  Decoding a vector of words at once (shift, mask, convert, multiply-add), with the activations laid out in the
  order in which the lanes meet them and each group's bias taken out of the loop, makes the vector units the
  limit instead of one value's latency. More ROWS share the loads of x; PREFETCH reads ahead of the decoder.
---*/
// helpers
using Rows = Packed<BITS, GROUP, K>;
// body
Staged<Rows, Shifted> staged;
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
