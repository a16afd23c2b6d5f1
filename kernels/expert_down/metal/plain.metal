/*---
op: expert_down
target: metal
tunables:
  THREADS: [256, 64, 128, 512, 1024]
launch:
  grid: ["H", "p / TOP", 1]
  threadgroup: ["min(THREADS, H)", 1, 1]
hypothesis: >
  One thread an output, in the order of the formula: the starting point. Neighbouring threads read words that lie
  a whole row apart, so that hardly a byte of a cache line serves its SIMD group; one chain of additions a thread.
---*/
const size_t n = thread_position_in_grid.x, row = thread_position_in_grid.y;
float total = 0;
for (size_t pair = row * TOP; pair < (row + 1) * TOP; ++pair) {
    const auto expert = (const device uchar*)experts + size_t(slot[pair]) * STRIDE;
    const auto words = (const device uint*)(expert + DOWN_WEIGHT) + n * (I * BITS / 32);
    const auto scales = (const device S*)(expert + DOWN_SCALES) + n * (I / GROUP);
    const auto biases = (const device S*)(expert + DOWN_BIASES) + n * (I / GROUP);
    float dot = 0;
    for (int k = 0; k < I; ++k) {
        const int word = k * BITS / 32, shift = k * BITS % 32, group = k / GROUP;
        uint q = words[word] >> shift;
        if (shift + BITS > 32) q |= words[word + 1] << (32 - shift);
        q &= (1u << BITS) - 1;
        dot += float(h[pair * I + k]) * (float(scales[group]) * float(q) + float(biases[group]));
    }
    total += weight[pair] * dot;
}
y[row * H + n] = T(total);
