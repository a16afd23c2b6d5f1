/*---
op: expert_gate_up
target: metal
tunables:
  SIMD_GROUPS: [8, 4, 2, 16, 32]
launch:
  grid: ["ceil_div(I, SIMD_GROUPS) * 32 * SIMD_GROUPS", "p", 1]
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
constexpr constant int TILE = H < 4096 ? H : 4096;

uint field(const device uint* words, int j) {
    const int word = j * BITS / 32, shift = j * BITS % 32;
    const uint low = words[word] >> shift;
    return (shift + BITS > 32 ? low | words[word + 1] << (32 - shift) : low) & ((1u << BITS) - 1);
}
// The rows of one projection, from the start-th value on.
struct Rows {
    const device uint* words;
    const device S* scales;
    const device S* biases;
};
Rows rows_at(const device uchar* expert, size_t weight, size_t scales, size_t biases, size_t n, int start) {
    const size_t group = n * (H / GROUP) + start / GROUP;
    return Rows{(const device uint*)(expert + weight) + n * (H * BITS / 32) + start / 32 * BITS,
                (const device S*)(expert + scales) + group, (const device S*)(expert + biases) + group};
}
// This lane's part of a row's product with `count` values of x: whole groups.
float product(Rows packed, threadgroup const float* values, int count, uint lane) {
    float total = 0;
    for (int k = lane * GROUP; k < count; k += 32 * GROUP) {
        const float scale = float(packed.scales[k / GROUP]), bias = float(packed.biases[k / GROUP]);
        float table[1 << BITS];
        for (int q = 0; q < 1 << BITS; ++q) table[q] = fma(scale, float(q), bias);
        const auto words = packed.words + k / 32 * BITS;
        for (int j = 0; j < GROUP; ++j) total = fma(values[k + j], table[field(words, j)], total);
    }
    return total;
}
// body
threadgroup float staged[TILE];
const uint lane = thread_index_in_simdgroup;
const size_t n = threadgroup_position_in_grid.x * SIMD_GROUPS + simdgroup_index_in_threadgroup;
const size_t pair = threadgroup_position_in_grid.y;
const auto expert = (const device uchar*)experts + size_t(slot[pair]) * STRIDE;
float gate = 0, up = 0;
for (int start = 0; start < H; start += TILE) {
    const int count = min(TILE, H - start);
    if (start > 0) threadgroup_barrier(mem_flags::mem_threadgroup);
    for (int k = thread_index_in_threadgroup; k < count; k += 32 * SIMD_GROUPS) {
        staged[k] = float(x[size_t(row[pair]) * H + start + k]);
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    if (n >= I) continue;  // to the next barrier
    const Rows gates = rows_at(expert, GATE_WEIGHT, GATE_SCALES, GATE_BIASES, n, start);
    const Rows ups = rows_at(expert, UP_WEIGHT, UP_SCALES, UP_BIASES, n, start);
    gate += product(gates, staged, count, lane);
    up += product(ups, staged, count, lane);
}
gate = simd_sum(gate);
up = simd_sum(up);
if (lane == 0 && n < I) h[pair * I + n] = T(gate / (1 + exp(-gate)) * up);
