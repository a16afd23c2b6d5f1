/*---
op: expert_down
target: cpu
tunables:
  ROWS: [1, 2, 4]
  PREFETCH: [4096, 0, 1024, 2048, 8192]
  TOKENS: [4, 2]
  THREADS: [2, 1, 4, 8]
launch: {threads: THREADS}
parent: prescaled
hypothesis: >
  Activations in three bytes each, as good as a float here, let one instruction multiply four of them a lane with
  weights that are bytes after one mask: some twenty vector instructions for 64 4-bit weights in place of twenty-four,
  fewer where one adds the four products too (VNNI, SDOT), and no rounding inside a group. A prompt's tokens are taken
  TOKENS at a time, in floats: what is decoded once serves them all.
---*/
// helpers
using Rows = Packed<BITS, GROUP, I>;
template <int N>
using Input = std::conditional_t<N == 1, FastestInput<Rows>::Type, Staged<Rows, InPlace>>;
// body
const auto rows_at = [&](auto& packed, long pair, long n) {
    const auto* expert = reinterpret_cast<const unsigned char*>(experts) + slot[pair] * STRIDE;
    for (auto& row : packed)
        row = PackedRow<S>::of<Rows>(expert + DOWN_WEIGHT, expert + DOWN_SCALES, expert + DOWN_BIASES, n++);
};
const Range mine = share(H, thread, n_threads);
if constexpr (TOP == 1) {
    in_runs_of<TOKENS>(slot, p, [&](auto tokens, long pair) {
        constexpr int count = tokens;
    Input<count> staged[count];
        for (int t = 0; t < count; ++t) staged[t].stage(h + (pair + t) * I, weight[pair + t]);
        in_steps_of<count == 1 ? ROWS : 2 * ROWS>(mine, [&](auto rows, long n) {
            PackedRow<S> packed[rows];
            rows_at(packed, pair, n);
            float dots[rows][count];
            packed_dots<count, PREFETCH>(staged, packed, dots);
            for (int i = 0; i < rows; ++i)
                for (int t = 0; t < count; ++t) y[(pair + t) * H + n + i] = from_float<T>(dots[i][t]);
        });
    });
} else {  // each token's experts are others
    for (long token = 0; token < p / TOP; ++token) {
        Input<1> staged[TOP];
        for (long j = 0; j < TOP; ++j) staged[j].stage(h + (token * TOP + j) * I, weight[token * TOP + j]);
        in_steps_of<ROWS>(mine, [&](auto rows, long n) {
            vfloat totals[rows][1] = {};
            for (long j = 0; j < TOP; ++j) {
                PackedRow<S> packed[rows];
                rows_at(packed, token * TOP + j, n);
                add_products<1, PREFETCH>(&staged[j], packed, totals);
            }
            for (int i = 0; i < rows; ++i) y[token * H + n + i] = from_float<T>(sum(totals[i][0]));
        });
    }
}
