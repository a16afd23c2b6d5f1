/*---
op: qmatvec
target: cpu
tunables:
  ROWS: [1, 2]
  AHEAD: [4, 8, 16]
  PREFETCH: [8192, 0, 2048]
  THREADS: [2, 1, 4, 8]
launch: {threads: THREADS}
parent: limbs
hypothesis: >
  Scales and biases are an eighth of the bytes, and two streams of their own that nothing asks for ahead: a row's are two
  lines each. Asking for them AHEAD rows before saves two waits a row where the hardware does not follow.
---*/
// helpers
using Rows = Packed<BITS, GROUP, K>;
template <int N>
using Input = std::conditional_t<N == 1, FastestInput<Rows>::Type, Staged<Rows, InPlace>>;
// body
const auto row_at = [&](long n) {
    for (long at = 0; at < Rows::row_groups; at += 64 / long(sizeof(S))) {
        __builtin_prefetch(scales + (n + AHEAD) * Rows::row_groups + at, 0, 2);
        __builtin_prefetch(biases + (n + AHEAD) * Rows::row_groups + at, 0, 2);
    }
    return PackedRow<S>::of<Rows>(w, scales, biases, n);
};
const auto by_rows = [&](auto tokens, long token) {
    constexpr int count = tokens;
    Input<count> staged[count];
    for (int t = 0; t < count; ++t) staged[t].stage(x + (token + t) * K);
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
