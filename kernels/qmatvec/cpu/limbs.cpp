/*---
op: qmatvec
target: cpu
tunables:
  ROWS: [1, 2, 4]
  PREFETCH: [4096, 0, 1024, 2048, 8192]
  TOKENS: [4, 2]
  THREADS: [2, 1, 4, 8]
launch: {threads: THREADS}
parent: prescaled
hypothesis: >
  Activations in three bytes each, as good as a float here, let one instruction multiply four of them a lane with
  weights that are bytes after one mask: some twenty vector instructions for 64 4-bit weights in place of twenty-four,
  fewer where one adds the four products too (VNNI, SDOT), and no rounding inside a group. A prompt's tokens are taken
  TOKENS at a time, in floats: what is decoded once serves them all.
---*/
// helpers
using Rows = Packed<BITS, GROUP, K>;
template <int N>
using Input = std::conditional_t<N == 1, FastestInput<Rows>::Type, Staged<Rows, InPlace>>;
// body
in_steps_of<TOKENS>({0, m}, [&](auto tokens, long token) {
    constexpr int count = tokens;
    Input<count> staged[count];
    for (int t = 0; t < count; ++t) staged[t].stage(x + (token + t) * K);
    in_steps_of<count == 1 ? ROWS : 2 * ROWS>(share(N, thread, n_threads), [&](auto rows, long n) {
        PackedRow<S> packed[rows];
        for (int i = 0; i < rows; ++i) packed[i] = PackedRow<S>::of<Rows>(w, scales, biases, n + i);
        float dots[rows][count];
        packed_dots<count, PREFETCH>(staged, packed, dots);
        for (int i = 0; i < rows; ++i)
            for (int t = 0; t < count; ++t) y[(token + t) * N + n + i] = from_float<T>(dots[i][t]);
    });
});
