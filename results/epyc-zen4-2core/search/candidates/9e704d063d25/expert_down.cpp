/*---
op: expert_down
target: cpu
tunables:
  ROWS: [1, 2, 4]
  PREFETCH: [8192, 0, 2048, 4096, 16384, 32768]
  THREADS: [2, 1, 4, 8]
launch: {threads: THREADS}
parent: prescaled
hypothesis: >
  Activations in three bytes each, as good as a float here, let one instruction multiply four of them a lane with
  weights that are bytes after one mask: some twenty vector instructions for 64 4-bit weights in place of twenty-four,
  fewer where one adds the four products too (VNNI, SDOT), and no rounding inside a group. A prompt's tokens share what
  is decoded: in tiles with a row a lane where there is such an instruction, else four at a time in floats.
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
        float totals[H];
        std::fill(totals + mine.begin, totals + mine.end, 0.0f);
        for (long pair = token * TOP; pair < (token + 1) * TOP; ++pair) {
            Input<1> staged[1];
            staged[0].stage(h + pair * I, weight[pair]);
            row_dots<S, ROWS, PREFETCH>(
                staged, mine, [&](long n) { return row_at(pair, n); },
                [&](long n, int, float dot) { totals[n] += dot; });
        }
        for (long n = mine.begin; n < mine.end; ++n) y[token * H + n] = from_float<T>(totals[n]);
    }
}
