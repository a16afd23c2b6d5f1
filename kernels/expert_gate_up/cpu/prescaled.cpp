/*---
op: expert_gate_up
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
using Rows = Packed<BITS, GROUP, H>;
// body
Staged<Rows, InPlace> staged;
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
