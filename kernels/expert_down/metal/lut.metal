/*---
op: expert_down
target: metal
tunables:
  SIMD_GROUPS: [8, 4, 2, 16, 32]
launch:
  grid: ["ceil_div(H, SIMD_GROUPS) * 32 * SIMD_GROUPS", "p / TOP", 1]
  threadgroup: ["32 * SIMD_GROUPS", 1, 1]
parent: shipped
supports: {BITS: [2, 3, 4]}
hypothesis: >
  A group has only 2^BITS different weights: compute them once, then look each value up, which leaves one
  multiply-add a value. Tables of 64 or 256 floats (6 and 8 bits) are longer than most groups and not supported.
  Flash-MoE measured -2 % on the M3 Max, and a search should agree: registers cannot be indexed by a value, so the
  table goes to memory or becomes a chain of selects, and 16 groups in a row leave half of the lanes idle.
---*/
// helpers
constexpr constant int TILE = I < 4096 ? I : 4096;

uint field(const device uint* words, int k) {
    const int word = k * BITS / 32, shift = k * BITS % 32;
    const uint low = words[word] >> shift;
    return (shift + BITS > 32 ? low | words[word + 1] << (32 - shift) : low) & ((1u << BITS) - 1);
}
// The product of one group of weights with its values of h.
float group_product(const device uint* words, float scale, float bias, threadgroup const float* values) {
    float table[1 << BITS];
    for (int q = 0; q < 1 << BITS; ++q) table[q] = fma(scale, float(q), bias);
    float total = 0;
    for (int k = 0; k < GROUP; ++k) total = fma(values[k], table[field(words, k)], total);
    return total;
}
// body
threadgroup float staged[TILE];
const size_t n = threadgroup_position_in_grid.x * SIMD_GROUPS + simdgroup_index_in_threadgroup;
const size_t row = threadgroup_position_in_grid.y;
float total = 0;
for (size_t pair = row * TOP; pair < (row + 1) * TOP; ++pair) {
    const auto expert = (const device uchar*)experts + size_t(slot[pair]) * STRIDE;
    const auto words = (const device uint*)(expert + DOWN_WEIGHT) + n * (I * BITS / 32);
    const auto scales = (const device S*)(expert + DOWN_SCALES) + n * (I / GROUP);
    const auto biases = (const device S*)(expert + DOWN_BIASES) + n * (I / GROUP);
    for (int start = 0; start < I; start += TILE) {
        const int count = min(TILE, I - start);
        if (pair > row * TOP || start > 0) threadgroup_barrier(mem_flags::mem_threadgroup);
        for (int k = thread_index_in_threadgroup; k < count; k += 32 * SIMD_GROUPS) {
            staged[k] = weight[pair] * float(h[pair * I + start + k]);
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
        if (n >= H) continue;  // to the next barrier
        for (int k = thread_index_in_simdgroup * GROUP; k < count; k += 32 * GROUP) {
            const int group = (start + k) / GROUP;
            const auto at = words + group * (GROUP / 32 * BITS);
            total += group_product(at, float(scales[group]), float(biases[group]), staged + k);
        }
    }
}
total = simd_sum(total);
if (thread_index_in_simdgroup == 0 && n < H) y[row * H + n] = T(total);
