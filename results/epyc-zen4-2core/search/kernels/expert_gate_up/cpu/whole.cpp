/*---
op: expert_gate_up
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
using Rows = Packed<BITS, GROUP, H>;
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
const Range mine = share(p * I, thread, n_threads);
Kept kept;
in_pieces(mine, I, [&](long piece, Range part) {
    const long pair = piece;
    const T* input = x + row[pair] * H;
    const uint32* expert = experts + slot[pair] * (STRIDE / 4);
    float gates[I];
    float ups[I];
    const Input& staged = kept.of(input);
    in_steps_of<ROWS>(part, [&](auto rows, long first) {
        PackedRow<S> packed[rows];
        unrolled<rows>([&](auto row_2) __attribute__((always_inline)) {
            const long at = first + row_2;
            const long n = at;
            packed[row_2] = packed_row(reinterpret_cast<const uint32*>((reinterpret_cast<const unsigned char*>(expert)) + GATE_WEIGHT + n * H * BITS / 8), reinterpret_cast<const S*>((reinterpret_cast<const unsigned char*>(expert)) + GATE_SCALES) + n * (H / GROUP), reinterpret_cast<const S*>((reinterpret_cast<const unsigned char*>(expert)) + GATE_BIASES) + n * (H / GROUP));
        });
        float dots[rows][1];
        packed_dots<1, PREFETCH>(&staged, packed, dots);
        unrolled<rows>([&](auto row_2) __attribute__((always_inline)) {
            const long at = first + row_2;
            gates[at] = dots[row_2][0];
        });
    });
    const Input& staged2 = kept.of(input);
    in_steps_of<ROWS>(part, [&](auto rows, long first) {
        PackedRow<S> packed[rows];
        unrolled<rows>([&](auto row_2) __attribute__((always_inline)) {
            const long at = first + row_2;
            const long n = at;
            packed[row_2] = packed_row(reinterpret_cast<const uint32*>((reinterpret_cast<const unsigned char*>(expert)) + UP_WEIGHT + n * H * BITS / 8), reinterpret_cast<const S*>((reinterpret_cast<const unsigned char*>(expert)) + UP_SCALES) + n * (H / GROUP), reinterpret_cast<const S*>((reinterpret_cast<const unsigned char*>(expert)) + UP_BIASES) + n * (H / GROUP));
        });
        float dots[rows][1];
        packed_dots<1, PREFETCH>(&staged2, packed, dots);
        unrolled<rows>([&](auto row_2) __attribute__((always_inline)) {
            const long at = first + row_2;
            ups[at] = dots[row_2][0];
        });
    });
    {
        long at_start = part.begin;
        for (; at_start + UNROLL - 1 < part.end; at_start += UNROLL) {
            for (int turn = 0; turn < UNROLL; ++turn) {
                const long at = at_start + turn;
                const long i = piece * I + at;
                h[i] = from_float<T>(silu(gates[at]) * ups[at]);
            }
        }
        for (; at_start < part.end; at_start += 1) {
            const long at = at_start;
            const long i = piece * I + at;
            h[i] = from_float<T>(silu(gates[at]) * ups[at]);
        }
    }
});
