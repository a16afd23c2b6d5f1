/*---
op: qmatvec
target: cpu
tunables:
  ROWS: [4, 2]
  PREFETCH: [8192, 0]
  THREADS: [2, 1, 4, 8]
launch: {threads: THREADS}
parent: b2_two_streams
hypothesis: >
  Four rows at a time, a page apart in each core's share: the core meets four pages at once, and each page twice, so that
  translations are asked for earlier. b2 took two halves and lost 5 %, if anything.
---*/
// helpers
using Rows = Packed<BITS, GROUP, K>;
template <int N>
using Input = std::conditional_t<N == 1, FastestInput<Rows>::Type, Staged<Rows, InPlace>>;
// body
const auto row_at = [&](long n) { return PackedRow<S>::of<Rows>(w, scales, biases, n); };
const Range mine = share(N, thread, n_threads);
// Blocks of 4 * PAGE rows; in one, the rows at the same place of its four parts come one after the other.
const auto apart = [&](long n) {
    constexpr long PAGE = std::max(1L, 4096 / Rows::row_bytes);
    const long i = n - mine.begin, block = i / (4 * PAGE), within = i % (4 * PAGE);
    if ((block + 1) * 4 * PAGE > mine.end - mine.begin) return n;
    return mine.begin + block * 4 * PAGE + within % 4 * PAGE + within / 4;
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
