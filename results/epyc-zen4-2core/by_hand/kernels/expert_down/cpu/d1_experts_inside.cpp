/*---
op: expert_down
target: cpu
tunables:
  ROWS: [1, 2]
  PREFETCH: [8192, 0, 2048, 4096, 16384, 32768]
  THREADS: [2, 1, 4, 8]
launch: {threads: THREADS}
parent: limbs
hypothesis: >
  All experts of a token for one row of the output, then the next row: the sums stay in registers, and TOP streams are
  asked for at once. The comment at row_dots says that several matrices in turn come slower; here is the figure.
---*/
// helpers
using Rows = Packed<BITS, GROUP, I>;
template <int N>
using Input = std::conditional_t<N == 1, FastestInput<Rows>::Type, Staged<Rows, InPlace>>;
// body
const auto row_at = [&](long pair, long n) {
    const auto* expert = reinterpret_cast<const unsigned char*>(experts) + slot[pair] * STRIDE;
    return PackedRow<S>::of<Rows>(expert + DOWN_WEIGHT, expert + DOWN_SCALES, expert + DOWN_BIASES, n);
};
const auto by_rows = [&](auto tokens, long pair) {
    constexpr int count = tokens;
    Input<count> staged[count];
    for (int t = 0; t < count; ++t) staged[t].stage(h + (pair + t) * I, weight[pair + t]);
    row_dots<S, count == 1 ? ROWS : 2 * ROWS, PREFETCH>(
        staged, share(H, thread, n_threads), [&](long n) { return row_at(pair, n); },
        [&](long n, int t, float dot) { y[(pair + t) * H + n] = from_float<T>(dot); });
};
const auto by_tiles = [&](auto packed, long pair, long count) {
    using P = decltype(packed);
    const auto staged = staged_tokens<P>(
        count, [&](long t, auto& to) { to.stage(h + (pair + t) * I, weight[pair + t]); });
    row_tiles<P, S>(staged, count, share_of_tiles(H, 2 * LANES, thread, n_threads),
                    [&](long n) { return row_at(pair, n); },
                    [&](long n, long t, float dot) { y[(pair + t) * H + n] = from_float<T>(dot); });
};
if constexpr (TOP == 1) {
    in_runs(slot, p, [&](long pair, long count) {
        if (!in_tiles<Rows>(by_tiles, pair, count)) in_steps_of<ROW_TOKENS<Rows>>({pair, pair + count}, by_rows);
    });
} else {  // each token's experts are others
    for (long token = 0; token < p / TOP; ++token) {
        const Range mine = share(H, thread, n_threads);
        static thread_local Input<1> staged[TOP];
        for (long j = 0; j < TOP; ++j) staged[j].stage(h + (token * TOP + j) * I, weight[token * TOP + j]);
        in_steps_of<ROWS>(mine, [&](auto rows, long n) {
            vfloat totals[rows][1] = {};
            for (long j = 0; j < TOP; ++j) {
                PackedRow<S> packed[rows];
                for (int i = 0; i < rows; ++i) packed[i] = row_at(token * TOP + j, n + i);
                add_products<1, PREFETCH>(&staged[j], packed, totals);
            }
            for (int i = 0; i < rows; ++i) y[token * H + n + i] = from_float<T>(sum(totals[i][0]));
        });
    }
}
