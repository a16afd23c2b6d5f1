/*---
op: qmatvec
target: cpu
tunables:
  ROWS: [2, 4]
  PREFETCH: [8192, 0, 2048, 4096]
  THREADS: [2, 1, 4, 8]
launch: {threads: THREADS}
parent: limbs
hypothesis: >
  Two rows at a time that lie half a share apart: two streams a core ask for twice as many lines before the first one
  is there. The rows that lie side by side share one stream.
---*/
// helpers
using Rows = Packed<BITS, GROUP, K>;
template <int N>
using Input = std::conditional_t<N == 1, FastestInput<Rows>::Type, Staged<Rows, InPlace>>;
// body
const auto row_at = [&](long n) { return PackedRow<S>::of<Rows>(w, scales, biases, n); };
const Range mine = share(N, thread, n_threads);
const long half = (mine.end - mine.begin) / 2;
// Rows in turn from either half; of an odd number the last one stays last.
const auto apart = [&](long n) {
    const long i = n - mine.begin;
    return i < 2 * half ? mine.begin + i / 2 + i % 2 * half : n;
};
const auto by_rows = [&](auto tokens, long token) {
    constexpr int count = tokens;
    Input<count> staged[count];
    for (int t = 0; t < count; ++t) staged[t].stage(x + (token + t) * K);
    row_dots<S, count == 1 ? ROWS : 2 * ROWS, PREFETCH>(
        staged, mine, [&](long n) { return row_at(apart(n)); },
        [&](long n, int t, float dot) { y[(token + t) * N + apart(n)] = from_float<T>(dot); });
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
