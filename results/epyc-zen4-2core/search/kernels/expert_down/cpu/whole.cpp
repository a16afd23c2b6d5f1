/*---
op: expert_down
target: cpu
tunables:
  THREADS: [2, 1, 4, 8]
  PREFETCH: [8192, 0, 2048, 4096, 16384, 32768]
  ROWS: [2, 1, 4]
  UNROLL: [4, 2, 8]
launch: {threads: THREADS}
hypothesis: 'UNROLL turns of a loop as straight code: less counting and branching, and loads that the compiler may
  move ahead of the arithmetic of the turn before.'
traits: [stage_input, cut_into_pieces, one_matrix_at_a_time, ask_once, mask_in_place, prefetch_words, several_rows,
  unroll]
---*/
// helpers
using Rows = Packed<BITS, GROUP, I>;
using Input = Staged<Rows, InPlace>;
// Activations, laid out again only where others are asked for.
struct Kept {
    Input input;
    const T* from = nullptr;

    const Input& of(const T* x) {
        if (x != from) input.stage(x);
        from = x;
        return input;
    }
};
static PackedRow<S> packed_row(const uint32* weight, const S* scales, const S* biases) {
    return {reinterpret_cast<const unsigned char*>(weight), scales, biases};
}
static float packed_product(const Input& input, const PackedRow<S>& weights) {
    const PackedRow<S> one[1] = {weights};
    float out[1][1];
    packed_dots<1, PREFETCH>(&input, one, out);
    return out[0][0];
}
// body
const Range mine = share(p / TOP * H, thread, n_threads);
Kept kept[TOP];
in_pieces(mine, H, [&](long piece, Range part) {
    const long first = piece * TOP;
    float totals[H];
    {
        long at_start = part.begin;
        for (; at_start + UNROLL - 1 < part.end; at_start += UNROLL) {
            for (int turn = 0; turn < UNROLL; ++turn) {
                const long at = at_start + turn;
                totals[at] = 0;
            }
        }
        for (; at_start < part.end; at_start += 1) {
            const long at = at_start;
            totals[at] = 0;
        }
    }
    for (long pair = first; pair < first + TOP; ++pair) {
        const uint32* expert = experts + slot[pair] * (STRIDE / 4);
        const Input& staged = kept[pair - first].of(h + pair * I);
        in_steps_of<ROWS>(part, [&](auto rows, long first_2) {
            PackedRow<S> packed[rows];
            unrolled<rows>([&](auto row) __attribute__((always_inline)) {
                const long at = first_2 + row;
                const long n = at;
                packed[row] = packed_row(reinterpret_cast<const uint32*>((reinterpret_cast<const unsigned char*>(expert)) + DOWN_WEIGHT + n * I * BITS / 8), reinterpret_cast<const S*>((reinterpret_cast<const unsigned char*>(expert)) + DOWN_SCALES) + n * (I / GROUP), reinterpret_cast<const S*>((reinterpret_cast<const unsigned char*>(expert)) + DOWN_BIASES) + n * (I / GROUP));
            });
            float dots[rows][1];
            packed_dots<1, PREFETCH>(&staged, packed, dots);
            unrolled<rows>([&](auto row) __attribute__((always_inline)) {
                const long at = first_2 + row;
                totals[at] += weight[pair] * dots[row][0];
            });
        });
    }
    {
        long at_start = part.begin;
        for (; at_start + UNROLL - 1 < part.end; at_start += UNROLL) {
            for (int turn = 0; turn < UNROLL; ++turn) {
                const long at = at_start + turn;
                const long i = piece * H + at;
                y[i] = from_float<T>(totals[at]);
            }
        }
        for (; at_start < part.end; at_start += 1) {
            const long at = at_start;
            const long i = piece * H + at;
            y[i] = from_float<T>(totals[at]);
        }
    }
});
