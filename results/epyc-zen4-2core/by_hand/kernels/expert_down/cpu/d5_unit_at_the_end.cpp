/*---
op: expert_down
target: cpu
tunables:
  ROWS: [1, 2]
  PREFETCH: [8192, 2048]
  THREADS: [2, 1, 4, 8]
launch: {threads: THREADS}
parent: limbs
hypothesis: >
  As b6, which gained 6 % of qmatvec with an interval too wide to be kept: the unit once a row.
---*/
// helpers
using Rows = Packed<BITS, GROUP, I>;
template <int N>
using Input = std::conditional_t<N == 1, FastestInput<Rows>::Type, Staged<Rows, InPlace>>;
// One token's limbs with one row of the weights, the unit left out: the row's product is unit * (the first of these) + the second.
template <int GROUPS, class P, class Row>
inline __attribute__((always_inline)) void add_whole(const Limbs<P>& x, long block, const Row (&row)[1], vfloat (&whole)[1][1], vfloat (&rest)[1][1]) {
    walk_block<P, PREFETCH, GROUPS>(&x, block, row, rest, [&](auto valid, long step, auto& at, auto& scales) __attribute__((always_inline)) {
        LimbSums<P::bits> sums;
        const vuint words = load<vuint, valid>(at[0]);
        sums.begin(x.start(step));
        unrolled<Limbs<P>::planes>([&](auto plane) __attribute__((always_inline)) {
            const auto& part = x.x[step][plane];
            const vint limbs[LIMBS] = {load<vint>(part[0]), load<vint>(part[1]), load<vint>(part[2])};
            sums.add(plane_of<P::bits>(words, plane), limbs);
        });
        whole[0][0] += scales[0] * sums.total();
    });
}
// That row's product.
template <class P, class Row>
inline __attribute__((always_inline)) float whole_dot(const Limbs<P>& x, const Row& packed) {
    const Row row[1] = {packed};
    vfloat whole[1][1] = {}, rest[1][1] = {};
    for (long block = 0; block < P::blocks; ++block) add_whole<LANES>(x, block, row, whole, rest);
    if constexpr (P::rest > 0) add_whole<P::rest>(x, P::blocks, row, whole, rest);
    return sum(whole[0][0] * x.unit + rest[0][0]);
}
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
            if constexpr (fit_bytes<BITS>) {
                for (long n = mine.begin; n < mine.end; ++n) totals[n] += whole_dot(staged[0], row_at(pair, n));
            } else {
                row_dots<S, ROWS, PREFETCH>(
                    staged, mine, [&](long n) { return row_at(pair, n); },
                    [&](long n, int, float dot) { totals[n] += dot; });
            }
        }
        for (long n = mine.begin; n < mine.end; ++n) y[token * H + n] = from_float<T>(totals[n]);
    }
}
