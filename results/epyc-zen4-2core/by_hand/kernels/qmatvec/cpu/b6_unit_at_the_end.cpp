/*---
op: qmatvec
target: cpu
tunables:
  ROWS: [1, 2]
  PREFETCH: [8192, 0, 2048]
  THREADS: [2, 1, 4, 8]
launch: {threads: THREADS}
parent: limbs
hypothesis: >
  The unit of the limbs is one number for all of a row: multiplied once a row in place of once a step it saves one of
  some twenty instructions. Shows if instructions are still the limit; b1 to b4 say that asking for more does not help.
---*/
// helpers
using Rows = Packed<BITS, GROUP, K>;
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
// body
const auto row_at = [&](long n) { return PackedRow<S>::of<Rows>(w, scales, biases, n); };
const auto by_rows = [&](auto tokens, long token) {
    constexpr int count = tokens;
    Input<count> staged[count];
    for (int t = 0; t < count; ++t) staged[t].stage(x + (token + t) * K);
    if constexpr (count == 1 && fit_bytes<BITS>) {
        const Range mine = share(N, thread, n_threads);
        for (long n = mine.begin; n < mine.end; ++n) {
            const PackedRow<S> row[1] = {row_at(n)};
            vfloat whole[1][1] = {}, rest[1][1] = {};
            for (long block = 0; block < Rows::blocks; ++block) add_whole<LANES>(staged[0], block, row, whole, rest);
            if constexpr (Rows::rest > 0) add_whole<Rows::rest>(staged[0], Rows::blocks, row, whole, rest);
            y[token * N + n] = from_float<T>(sum(whole[0][0] * staged[0].unit + rest[0][0]));
        }
        return;
    }
    row_dots<S, count == 1 ? ROWS : 2 * ROWS, PREFETCH>(
        staged, share(N, thread, n_threads), row_at,
        [&](long n, int t, float dot) { y[(token + t) * N + n] = from_float<T>(dot); });
};
const auto by_tiles = [&](auto packed, long token, long count) {
    using P = decltype(packed);
    const auto staged = staged_tokens<P>(count, [&](long t, auto& to) { to.stage(x + (token + t) * K); });
    row_tiles<P, S>(staged, count, share_of_tiles(N, 2 * LANES, thread, n_threads), row_at,
                    [&](long n, long t, float dot) { y[(token + t) * N + n] = from_float<T>(dot); });
};
for (long token = 0; token < m; token += STAGED_TOKENS) {
    const long count = std::min(m - token, STAGED_TOKENS);
    if (!in_tiles<Rows>(by_tiles, token, count)) in_steps_of<ROW_TOKENS<Rows>>({token, token + count}, by_rows);
}
