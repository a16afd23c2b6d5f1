/*---
op: expert_down
target: cpu
tunables:
  ROWS: [1, 2, 4]
  PREFETCH: [0, 1024, 4096]
  THREADS: [2, 1, 4, 8]
launch: {threads: THREADS}
parent: plain
hypothesis: >
  Decoding a vector of words at once (shift, mask, convert, multiply-add), with the activations laid out in the
  order in which the lanes meet them and each group's bias taken out of the loop, makes the vector units the
  limit instead of one value's latency. More ROWS share the loads of x; PREFETCH reads ahead of the decoder.
---*/
// helpers
struct Decode {
    static constexpr float factor(int) { return 1.0f; }
    template <int B, int J>
    static vfloat field(const vuint* words) { return to_floats(shifted_field<B, J>(words)); }
};
using Rows = Packed<BITS, GROUP, I>;
// body
Staged<Rows, Decode> staged;
in_pieces(share(p * H, thread, n_threads), H, [&](long pair, Range outputs) {
    staged.stage(h + pair * I);
    const auto* expert = reinterpret_cast<const unsigned char*>(experts) + slot[pair] * STRIDE;
    in_steps_of<ROWS>(outputs, [&](auto rows, long n) {
        PackedRow<S> packed[rows];
        for (int i = 0; i < rows; ++i)
            packed[i] = PackedRow<S>::of<Rows>(
                expert + DOWN_WEIGHT, expert + DOWN_SCALES, expert + DOWN_BIASES, n + i);
        float dots[rows];
        packed_dots<Rows, Decode, PREFETCH>(staged, packed, dots);
        for (int i = 0; i < rows; ++i) y[pair * H + n + i] = from_float<T>(dots[i]);
    });
});
