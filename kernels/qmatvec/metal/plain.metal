/*---
op: qmatvec
target: metal
tunables:
  THREADS: [256, 64, 128, 512, 1024]
launch:
  grid: ["N", "m", 1]
  threadgroup: ["min(THREADS, N)", 1, 1]
hypothesis: >
  One thread an output, in the order of the formula: the starting point. Neighbouring threads read words that lie
  a whole row apart, so that hardly a byte of a cache line serves its SIMD group; one chain of additions a thread.
---*/
const size_t n = thread_position_in_grid.x, token = thread_position_in_grid.y;
float total = 0;
for (int k = 0; k < K; ++k) {
    const size_t word = n * (K * BITS / 32) + k * BITS / 32, group = n * (K / GROUP) + k / GROUP;
    const int shift = k * BITS % 32;
    uint q = w[word] >> shift;
    if (shift + BITS > 32) q |= w[word + 1] << (32 - shift);
    q &= (1u << BITS) - 1;
    total += float(x[token * K + k]) * (float(scales[group]) * float(q) + float(biases[group]));
}
y[token * N + n] = T(total);
