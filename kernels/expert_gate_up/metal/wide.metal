/*---
op: expert_gate_up
target: metal
tunables:
  SIMD_GROUPS: [8, 4, 2, 16, 32]
  WIDTH: [4, 2]
launch:
  grid: ["ceil_div(I, SIMD_GROUPS) * 32 * SIMD_GROUPS", "p", 1]
  threadgroup: ["32 * SIMD_GROUPS", 1, 1]
parent: shipped
supports: {BITS: [2, 4, 8]}
hypothesis: >
  Sixteen bytes of weights in one load (WIDTH is in words) mean a quarter of the load instructions, and one pair of
  scale and bias for several words. 3- and 6-bit values straddle such loads and are not supported. Flash-MoE measured
  -3 % on the M3 Max, and a search should agree: its loads already hit the first cache (93 %), arithmetic was 64 % of
  the instructions, and a row of 512 words gives each lane just four loads to hide latency behind.
---*/
// helpers
constexpr constant int VALUES = 32 / BITS;  // of one word
constexpr constant int TILE = H < 4096 ? H : 4096;

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
float word_product(Rows packed, uint word, int k, threadgroup const float* values) {
    const float scale = float(packed.scales[k / GROUP]), bias = float(packed.biases[k / GROUP]);
    float total = 0;
    for (int j = 0; j < VALUES; ++j) {
        const uint q = word >> j * BITS & ((1u << BITS) - 1);
        total += fma(float(q), scale * values[k + j], bias * values[k + j]);
    }
    return total;
}
// This lane's part of a row's product with `count` values of x.
float product(Rows packed, threadgroup const float* values, int count, uint lane) {
    float total = 0;
    const int whole = count / VALUES / WIDTH * WIDTH;
    for (int word = lane * WIDTH; word < whole; word += WIDTH * 32) {
        const Wide<WIDTH>::Type several = *(const device Wide<WIDTH>::Type*)(packed.words + word);
        for (int i = 0; i < WIDTH; ++i) total += word_product(packed, several[i], (word + i) * VALUES, values);
    }
    const int k = (whole + lane) * VALUES;  // the words after the last whole load
    return k < count ? total + word_product(packed, packed.words[k / VALUES], k, values) : total;
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
