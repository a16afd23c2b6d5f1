/*---
op: expert_gate_up
target: metal
tunables:
  THREADS: [256, 64, 128, 512, 1024]
launch:
  grid: ["I", "p", 1]
  threadgroup: ["min(THREADS, I)", 1, 1]
hypothesis: >
  One thread an output, in the order of the formula: the starting point. Neighbouring threads read words that lie
  a whole row apart, so that hardly a byte of a cache line serves its SIMD group; one chain of additions a thread.
---*/
// helpers
// One output of one projection; the offsets are bytes in the expert.
float project(const device T* values, const device uchar* expert, size_t weight, size_t scale, size_t bias, size_t n) {
    const auto words = (const device uint*)(expert + weight) + n * (H * BITS / 32);
    const auto scales = (const device S*)(expert + scale) + n * (H / GROUP);
    const auto biases = (const device S*)(expert + bias) + n * (H / GROUP);
    float total = 0;
    for (int k = 0; k < H; ++k) {
        const int word = k * BITS / 32, shift = k * BITS % 32;
        uint q = words[word] >> shift;
        if (shift + BITS > 32) q |= words[word + 1] << (32 - shift);
        q &= (1u << BITS) - 1;
        total += float(values[k]) * (float(scales[k / GROUP]) * float(q) + float(biases[k / GROUP]));
    }
    return total;
}
// body
const size_t n = thread_position_in_grid.x, pair = thread_position_in_grid.y;
const auto values = x + size_t(row[pair]) * H;
const auto expert = (const device uchar*)experts + size_t(slot[pair]) * STRIDE;
const float gate = project(values, expert, GATE_WEIGHT, GATE_SCALES, GATE_BIASES, n);
const float up = project(values, expert, UP_WEIGHT, UP_SCALES, UP_BIASES, n);
h[pair * I + n] = T(gate / (1 + exp(-gate)) * up);
