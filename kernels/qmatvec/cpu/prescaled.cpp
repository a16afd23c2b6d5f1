/*---
op: qmatvec
target: cpu
tunables:
  ROWS: [1, 2, 4]
  PREFETCH: [0, 1024, 4096]
  THREADS: [2, 1, 4, 8]
launch: {threads: THREADS}
parent: vector
hypothesis: >
  The shift is a third of the integer work of decoding. A field that is masked in place is q * 2^shift; scaling
  x by 2^-shift when it is laid out undoes that exactly (powers of two), so the loop keeps mask, convert and
  multiply-add and comes nearer to the memory's bandwidth.
---*/
// helpers
struct Decode {
    // A field that ends below its word's top bit stays where it is, as q * 2^shift; x is scaled by 2^-shift.
    static constexpr bool in_place(int j) { return j * BITS % 32 + BITS < 32; }
    static constexpr float factor(int j) { return in_place(j) ? 1.0f / float(1u << j * BITS % 32) : 1.0f; }
    template <int B, int J>
    static vfloat field(const vuint* words) {
        if constexpr (in_place(J)) {
            return to_floats(words[J * B / 32] & ((1u << B) - 1) << J * B % 32);
        } else {
            return to_floats(shifted_field<B, J>(words));
        }
    }
};
using Rows = Packed<BITS, GROUP, K>;
// body
Staged<Rows, Decode> staged;
in_pieces(share(m * N, thread, n_threads), N, [&](long token, Range outputs) {
    staged.stage(x + token * K);
    in_steps_of<ROWS>(outputs, [&](auto rows, long n) {
        PackedRow<S> packed[rows];
        for (int i = 0; i < rows; ++i) packed[i] = PackedRow<S>::of<Rows>(w, scales, biases, n + i);
        float dots[rows];
        packed_dots<Rows, Decode, PREFETCH>(staged, packed, dots);
        for (int i = 0; i < rows; ++i) y[token * N + n + i] = from_float<T>(dots[i]);
    });
});
