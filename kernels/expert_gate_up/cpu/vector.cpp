/*---
op: expert_gate_up
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
using Rows = Packed<BITS, GROUP, H>;
// body
Staged<Rows, Shifted> staged;
long staged_row = -1;
in_pieces(share(p * I, thread, n_threads), I, [&](long pair, Range outputs) {
    if (row[pair] != staged_row) staged.stage(x + row[pair] * H);
    staged_row = row[pair];
    const auto* expert = reinterpret_cast<const unsigned char*>(experts) + slot[pair] * STRIDE;
    in_steps_of<ROWS>(outputs, [&](auto rows, long n) {
        PackedRow<S> packed[2 * rows];
        for (int i = 0; i < rows; ++i) {
            packed[i] = PackedRow<S>::of<Rows>(
                expert + GATE_WEIGHT, expert + GATE_SCALES, expert + GATE_BIASES, n + i);
            packed[rows + i] = PackedRow<S>::of<Rows>(
                expert + UP_WEIGHT, expert + UP_SCALES, expert + UP_BIASES, n + i);
        }
        float dots[2 * rows][1];
        packed_dots<1, PREFETCH>(&staged, packed, dots);
        for (int i = 0; i < rows; ++i) h[pair * I + n + i] = from_float<T>(silu(dots[i][0]) * dots[rows + i][0]);
    });
});
