/*---
op: expert_gate_up
target: cpu
tunables:
  ROWS: [1, 2]
  PREFETCH: [8192, 0, 2048, 4096, 16384, 32768]
  THREADS: [2, 1, 4, 8]
launch: {threads: THREADS}
parent: limbs
hypothesis: >
  The gate's row and the up row in one step: two streams a core, and no array of gates between. The comment at row_dots
  says that one matrix after the other comes faster; here is the figure.
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
    in_steps_of<at_a_time>(mine, [&](auto rows, long n) {
        PackedRow<S> packed[2 * rows];
        for (int i = 0; i < rows; ++i) packed[i] = expert.gate(n + i), packed[rows + i] = expert.up(n + i);
        float dots[2 * rows][count];
        packed_dots<count, PREFETCH>(staged, packed, dots);
        for (int i = 0; i < rows; ++i)
            for (int t = 0; t < count; ++t)
                h[(pair + t) * I + n + i] = from_float<T>(silu(dots[i][t]) * dots[rows + i][t]);
    });
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
