/*---
op: qmatvec
target: metal
tunables:
  SIMD_GROUPS: [8, 4, 2, 16, 32]
launch:
  grid: ["ceil_div(N, SIMD_GROUPS) * 32 * SIMD_GROUPS", "m", 1]
  threadgroup: ["32 * SIMD_GROUPS", 1, 1]
parent: shipped
supports: {BITS: [2, 3, 4]}
hypothesis: >
  A group has only 2^BITS different weights: compute them once, then look each value up, which leaves one
  multiply-add a value. Tables of 64 or 256 floats (6 and 8 bits) are longer than most groups and not supported.
  Flash-MoE measured -2 % on the M3 Max, and a search should agree: registers cannot be indexed by a value, so the
  table goes to memory or becomes a chain of selects, and a lane that takes whole groups leaves others idle.
---*/
// helpers
constexpr constant int TILE = K < 4096 ? K : 4096;

template <typename Words>
uint field(Words words, int k) {
    const int word = k * BITS / 32, shift = k * BITS % 32;
    const uint low = words[word] >> shift;
    return (shift + BITS > 32 ? low | words[word + 1] << (32 - shift) : low) & ((1u << BITS) - 1);
}
// The product of one group of weights with its values of x.
template <typename Words>
float group_product(Words words, float scale, float bias, threadgroup const float* values) {
    float table[1 << BITS];
    for (int q = 0; q < 1 << BITS; ++q) table[q] = fma(scale, float(q), bias);
    float total = 0;
    for (int k = 0; k < GROUP; ++k) total = fma(values[k], table[field(words, k)], total);
    return total;
}
// body
threadgroup float staged[TILE];
const size_t n = threadgroup_position_in_grid.x * SIMD_GROUPS + simdgroup_index_in_threadgroup;
const size_t token = threadgroup_position_in_grid.y;
float total = 0;
for (int start = 0; start < K; start += TILE) {
    const int count = min(TILE, K - start);
    if (start > 0) threadgroup_barrier(mem_flags::mem_threadgroup);
    for (int k = thread_index_in_threadgroup; k < count; k += 32 * SIMD_GROUPS) {
        staged[k] = float(x[token * K + start + k]);
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    if (n >= N) continue;  // to the next barrier
    for (int k = thread_index_in_simdgroup * GROUP; k < count; k += 32 * GROUP) {
        const size_t group = n * (K / GROUP) + (start + k) / GROUP;
        const auto words = w + group * (GROUP / 32 * BITS);
        total += group_product(words, float(scales[group]), float(biases[group]), staged + k);
    }
}
total = simd_sum(total);
if (thread_index_in_simdgroup == 0 && n < N) y[token * N + n] = T(total);
