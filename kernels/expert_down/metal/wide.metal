/*---
op: expert_down
target: metal
tunables:
  SIMD_GROUPS: [8, 4, 2, 16, 32]
  WIDTH: [4, 2]
launch:
  grid: ["ceil_div(H, SIMD_GROUPS) * 32 * SIMD_GROUPS", "p / TOP", 1]
  threadgroup: ["32 * SIMD_GROUPS", 1, 1]
parent: shipped
supports: {BITS: [2, 4, 8]}
hypothesis: >
  Sixteen bytes of weights in one load (WIDTH is in words) mean a quarter of the load instructions, and one pair of
  scale and bias for several words. 3- and 6-bit values straddle such loads and are not supported. Flash-MoE measured
  -3 % on the M3 Max, and a search should agree: its loads already hit the first cache (93 %), arithmetic was 64 % of
  the instructions, and a row of 128 words gives each lane one load, with nothing to hide its latency behind.
---*/
// helpers
constexpr constant int VALUES = 32 / BITS;  // of one word
constexpr constant int TILE = I < 4096 ? I : 4096;

// WIDTH words in one load, at a word's alignment.
template <int WORDS>
struct Wide;
template <>
struct Wide<4> {
    typedef packed_uint4 Type;
};
template <>
struct Wide<2> {
    typedef packed_uint2 Type;
};
float word_product(uint word, float scale, float bias, threadgroup const float* values) {
    float total = 0;
    for (int j = 0; j < VALUES; ++j) {
        const uint q = word >> j * BITS & ((1u << BITS) - 1);
        total += fma(float(q), scale * values[j], bias * values[j]);
    }
    return total;
}
// body
threadgroup float staged[TILE];
const uint lane = thread_index_in_simdgroup;
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
        const auto at = words + start / VALUES;
        const int whole = count / VALUES / WIDTH * WIDTH;
        for (int word = lane * WIDTH; word < whole; word += WIDTH * 32) {
            const Wide<WIDTH>::Type several = *(const device Wide<WIDTH>::Type*)(at + word);
            for (int i = 0; i < WIDTH; ++i) {
                const int k = (word + i) * VALUES, group = (start + k) / GROUP;
                total += word_product(several[i], float(scales[group]), float(biases[group]), staged + k);
            }
        }
        const int word = whole + lane, k = word * VALUES, group = (start + k) / GROUP;  // after the last whole load
        if (k < count) total += word_product(at[word], float(scales[group]), float(biases[group]), staged + k);
    }
}
total = simd_sum(total);
if (lane == 0 && n < H) y[row * H + n] = T(total);
