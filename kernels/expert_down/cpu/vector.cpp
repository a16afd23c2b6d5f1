/*---
op: expert_down
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
  limit instead of one value's latency. More ROWS share the loads of x; PREFETCH reads ahead of the decoder. The
  routing weights go into the activations, so that a row's TOP products share one sum across the lanes.
---*/
// helpers
using Rows = Packed<BITS, GROUP, I>;
// body
Staged<Rows, Shifted> staged[TOP];
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
