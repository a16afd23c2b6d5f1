/*---
op: expert_gate_up
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
using Rows = Packed<BITS, GROUP, H>;
template <int N>
using Input = std::conditional_t<N == 1, FastestInput<Rows>::Type, Staged<Rows, InPlace>>;
struct Expert {
    const unsigned char* record;

    PackedRow<S> gate(long n) const {
        return PackedRow<S>::of<Rows>(record + GATE_WEIGHT, record + GATE_SCALES, record + GATE_BIASES, n);
    }
    PackedRow<S> up(long n) const {
        return PackedRow<S>::of<Rows>(record + UP_WEIGHT, record + UP_SCALES, record + UP_BIASES, n);
    }
};
// body
const auto expert_of = [&](long pair) {
    return Expert{reinterpret_cast<const unsigned char*>(experts) + slot[pair] * STRIDE};
};
Input<1> one[1];
long staged_row = -1;
const auto dots_of = [&](const auto& staged, long pair, Range mine) {
    constexpr int count = std::extent_v<std::remove_reference_t<decltype(staged)>>;
    const Expert expert = expert_of(pair);
    constexpr int at_a_time = count == 1 ? ROWS : 2 * ROWS;
    float gates[I][count];
    row_dots<S, at_a_time, PREFETCH>(
        staged, mine, [&](long n) { return expert.gate(n); },
        [&](long n, int t, float dot) { gates[n][t] = silu(dot); });
    row_dots<S, at_a_time, PREFETCH>(
        staged, mine, [&](long n) { return expert.up(n); },
        [&](long n, int t, float dot) { h[(pair + t) * I + n] = from_float<T>(gates[n][t] * dot); });
};
const auto by_one = [&](long pair, Range mine) {
    if (row[pair] != staged_row) one[0].stage(x + row[pair] * H);
    staged_row = row[pair];
    dots_of(one, pair, mine);
};
const auto by_rows = [&](auto tokens, long pair) {
    constexpr int count = tokens;
    const Range mine = share(I, thread, n_threads);
    if constexpr (count == 1) return by_one(pair, mine);
    Input<count> staged[count];
    for (int t = 0; t < count; ++t) staged[t].stage(x + row[pair + t] * H);
    dots_of(staged, pair, mine);
};
const auto by_tiles = [&](auto packed, long pair, long count) {
    using P = decltype(packed);
    const auto staged = staged_tokens<P>(count, [&](long t, auto& to) { to.stage(x + row[pair + t] * H); });
    const Range mine = share_of_tiles(I, LANES, thread, n_threads);
    const auto tile = std::make_unique_for_overwrite<Tile<P, 2>>();
    const Expert expert = expert_of(pair);
    for (long n = mine.begin; n < mine.end; n += LANES) {
        PackedRow<S> rows[2][LANES];
        for (int i = 0; i < LANES; ++i) {
            rows[0][i] = expert.gate(std::min(n + i, mine.end - 1));
            rows[1][i] = expert.up(std::min(n + i, mine.end - 1));
        }
        tile->turn(rows);
        tile_products(*tile, staged, count, [&](long t, const vfloat(&dots)[2]) {
            for (int i = 0; i < LANES && n + i < mine.end; ++i)
                h[(pair + t) * I + n + i] = from_float<T>(silu(dots[0][i]) * dots[1][i]);
        });
    }
};
if (std::adjacent_find(slot, slot + p) == slot + p) return in_pieces(share(p * I, thread, n_threads), I, by_one);
in_runs(slot, p, [&](long pair, long count) {
    if (!in_tiles<Rows>(by_tiles, pair, count)) in_steps_of<ROW_TOKENS<Rows>>({pair, pair + count}, by_rows);
});
