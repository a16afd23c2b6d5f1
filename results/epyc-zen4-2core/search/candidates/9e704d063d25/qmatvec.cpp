/*---
op: qmatvec
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
using Rows = Packed<BITS, GROUP, K>;
template <int N>
using Input = std::conditional_t<N == 1, FastestInput<Rows>::Type, Staged<Rows, InPlace>>;
// body
const auto row_at = [&](long n) { return PackedRow<S>::of<Rows>(w, scales, biases, n); };
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
