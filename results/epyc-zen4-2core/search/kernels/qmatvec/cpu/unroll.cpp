/*---
op: qmatvec
target: cpu
tunables:
  ROWS: [1, 2, 4]
  PREFETCH: [8192, 0, 2048, 4096, 16384, 32768]
  THREADS: [2, 1, 4, 8]
  UNROLL: [4, 2, 8]
launch: {threads: THREADS}
parent: prescaled
hypothesis: 'UNROLL turns of a loop as straight code: less counting and branching, and loads that the compiler may
  move ahead of the arithmetic of the turn before.'
traits: [unroll]
---*/
// helpers
using Rows = Packed<BITS, GROUP, K>;
template <int N>
using Input = std::conditional_t<N == 1, FastestInput<Rows>::Type, Staged<Rows, InPlace>>;
// body
const auto row_at = [&](long n) { return PackedRow<S>::of<Rows>(w, scales, biases, n); };
const auto by_rows = [&](auto tokens, long token) {
    constexpr int count = tokens;
    Input<count> staged[count];
    {
        int t_start = 0;
        for (; t_start + UNROLL - 1 < count; t_start += UNROLL) {
            for (int turn = 0; turn < UNROLL; ++turn) {
                const int t = t_start + turn;
                staged[t].stage(x + (token + t) * K);
            }
        }
        for (; t_start < count; t_start += 1) {
            const int t = t_start;
            staged[t].stage(x + (token + t) * K);
        }
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
{
    long token_start = 0;
    for (; token_start + (UNROLL - 1) * STAGED_TOKENS < m; token_start += UNROLL * STAGED_TOKENS) {
        for (int turn = 0; turn < UNROLL; ++turn) {
            const long token = token_start + turn * STAGED_TOKENS;
            const long count = std::min(m - token, STAGED_TOKENS);
            if (!in_tiles<Rows>(by_tiles, token, count)) in_steps_of<ROW_TOKENS<Rows>>({token, token + count}, by_rows);
        }
    }
    for (; token_start < m; token_start += STAGED_TOKENS) {
        const long token = token_start;
        const long count = std::min(m - token, STAGED_TOKENS);
        if (!in_tiles<Rows>(by_tiles, token, count)) in_steps_of<ROW_TOKENS<Rows>>({token, token + count}, by_rows);
    }
}
