/*---
op: expert_gate_up
target: cpu
tunables:
  THREADS: [2, 1, 4, 8]
launch: {threads: THREADS}
hypothesis: >
  One value at a time, in the order of the formula: the starting point. Bound by the latency of one chain of
  float additions and by unpacking every value on its own, far from the memory's bandwidth.
---*/
// helpers
static float dot(const T* x, const uint32* weight, const S* scales, const S* biases, long length) {
    float total = 0;
    for (long k = 0; k < length; ++k) {
        const float scale = to_float(scales[k / GROUP]), bias = to_float(biases[k / GROUP]);
        total += to_float(x[k]) * (scale * packed_value<BITS>(weight, k) + bias);
    }
    return total;
}
// One output of an expert's projection of `length` inputs; the offsets are bytes in the expert.
static float project(const T* x, const uint32* expert, long weight, long scales, long biases, long n, long length) {
    const auto* bytes = reinterpret_cast<const unsigned char*>(expert);
    return dot(x, reinterpret_cast<const uint32*>(bytes + weight + n * length * BITS / 8),
               reinterpret_cast<const S*>(bytes + scales) + n * (length / GROUP),
               reinterpret_cast<const S*>(bytes + biases) + n * (length / GROUP), length);
}
// body
const Range mine = share(p * I, thread, n_threads);
for (long i = mine.begin; i < mine.end; ++i) {
    const long pair = i / I, n = i % I;
    const T* input = x + row[pair] * H;
    const uint32* expert = experts + slot[pair] * (STRIDE / 4);
    const float gate = project(input, expert, GATE_WEIGHT, GATE_SCALES, GATE_BIASES, n, H);
    const float up = project(input, expert, UP_WEIGHT, UP_SCALES, UP_BIASES, n, H);
    h[i] = from_float<T>(silu(gate) * up);
}
