/*---
op: expert_down
target: metal
tunables:
  THREADS: [256, 64, 128, 512, 1024]
launch:
  grid: ["H", "p", 1]
  threadgroup: ["min(THREADS, H)", 1, 1]
hypothesis: >
  One thread an output, in the order of the formula: the starting point. Neighbouring threads read words that lie
  a whole row apart, so that hardly a byte of a cache line serves its SIMD group; one chain of additions a thread.
---*/
const size_t n = thread_position_in_grid.x, pair = thread_position_in_grid.y;
const auto expert = (const device uchar*)experts + size_t(slot[pair]) * STRIDE;
const auto weight = (const device uint*)(expert + DOWN_WEIGHT);
const auto scales = (const device S*)(expert + DOWN_SCALES);
const auto biases = (const device S*)(expert + DOWN_BIASES);
float total = 0;
for (int k = 0; k < I; ++k) {
    const size_t word = n * (I * BITS / 32) + k * BITS / 32, group = n * (I / GROUP) + k / GROUP;
    const int shift = k * BITS % 32;
    uint q = weight[word] >> shift;
    if (shift + BITS > 32) q |= weight[word + 1] << (32 - shift);
    q &= (1u << BITS) - 1;
    total += float(h[pair * I + k]) * (float(scales[group]) * float(q) + float(biases[group]));
}
y[pair * H + n] = T(total);
