/*---
op: expert_down
target: cpu
tunables:
  ROWS: [1, 2]
  PIECE: [64, 16, 256]
  PREFETCH: [8192, 0, 2048]
  THREADS: [2, 1, 4, 8]
launch: {threads: THREADS}
parent: limbs
hypothesis: >
  PIECE rows of each expert in turn: the sums fit the first cache, and each expert's rows still come as one stretch.
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
        static thread_local Input<1> staged[TOP][1];
        for (long j = 0; j < TOP; ++j) staged[j][0].stage(h + (token * TOP + j) * I, weight[token * TOP + j]);
        for (long first = mine.begin; first < mine.end; first += PIECE) {
            const Range piece{first, std::min(mine.end, first + PIECE)};
            float totals[PIECE] = {};
            for (long j = 0; j < TOP; ++j)
                row_dots<S, ROWS, PREFETCH>(
                    staged[j], piece, [&](long n) { return row_at(token * TOP + j, n); },
                    [&](long n, int, float dot) { totals[n - first] += dot; });
            for (long n = piece.begin; n < piece.end; ++n) y[token * H + n] = from_float<T>(totals[n - first]);
        }
    }
}
