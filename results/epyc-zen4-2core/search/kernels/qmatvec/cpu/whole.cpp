/*---
op: qmatvec
target: cpu
tunables:
  THREADS: [2, 1, 4, 8]
  PREFETCH: [8192, 0, 2048, 4096, 16384, 32768]
  ROWS: [2, 1, 4]
launch: {threads: THREADS}
hypothesis: ROWS outputs side by side share what they load of the activations, and while one waits for its sum the
  others compute; too many spill the registers.
traits: [stage_input, cut_into_pieces, ask_once, mask_in_place, prefetch_words, several_rows]
---*/
// helpers
using Rows = Packed<BITS, GROUP, K>;
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
const Range mine = share(m * N, thread, n_threads);
Kept kept;
in_pieces(mine, N, [&](long piece, Range part) {
    const long token = piece;
    const Input& staged = kept.of(x + token * K);
    in_steps_of<ROWS>(part, [&](auto rows, long first) {
        PackedRow<S> packed[rows];
        unrolled<rows>([&](auto row) __attribute__((always_inline)) {
            const long at = first + row;
            const long n = at;
            packed[row] = packed_row(w + n * (K * BITS / 32), scales + n * (K / GROUP), biases + n * (K / GROUP));
        });
        float dots[rows][1];
        packed_dots<1, PREFETCH>(&staged, packed, dots);
        unrolled<rows>([&](auto row) __attribute__((always_inline)) {
            const long at = first + row;
            const long i = piece * N + at;
            y[i] = from_float<T>(dots[row][0]);
        });
    });
});
