/*---
op: expert_down
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
using Rows = Packed<BITS, GROUP, I>;
// body
Staged<Rows, InPlace> staged[TOP];
in_pieces(share(p / TOP * H, thread, n_threads), H, [&](long row, Range outputs) {
    for (long j = 0; j < TOP; ++j) staged[j].stage(h + (row * TOP + j) * I, weight[row * TOP + j]);
    in_steps_of<ROWS>(outputs, [&](auto rows, long n) {
        vfloat totals[rows][1] = {};
        for (long j = 0; j < TOP; ++j) {
            const auto* expert = reinterpret_cast<const unsigned char*>(experts) + slot[row * TOP + j] * STRIDE;
            PackedRow<S> packed[rows];
            for (int i = 0; i < rows; ++i)
                packed[i] = PackedRow<S>::of<Rows>(
                    expert + DOWN_WEIGHT, expert + DOWN_SCALES, expert + DOWN_BIASES, n + i);
            add_products<1, PREFETCH>(&staged[j], packed, totals);
        }
        for (int i = 0; i < rows; ++i) y[row * H + n + i] = from_float<T>(sum(totals[i][0]));
    });
});
