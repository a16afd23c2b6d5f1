/*---
op: qmatvec
target: metal
tunables:
  SIMD_GROUPS: [8, 4, 2, 16, 32]
  WIDTH: [4, 2]
launch:
  grid: ["ceil_div(N, SIMD_GROUPS) * 32 * SIMD_GROUPS", "m", 1]
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
constexpr constant int ROW_WORDS = K / VALUES;
constexpr constant int TILE = K < 4096 ? K : 4096;

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
// An input of fewer than eight elements lies in the constant address space.
template <typename Words, bool SMALL>
struct Input {
    typedef const device Words* Pointer;
};
template <typename Words>
struct Input<Words, true> {
    typedef const constant Words* Pointer;
};
typedef Wide<WIDTH>::Type Several;
typedef Input<Several, (N * ROW_WORDS < 8)>::Pointer SeveralAt;

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
    const auto words = w + n * ROW_WORDS + start / VALUES;
    const auto row_scales = scales + n * (K / GROUP) + start / GROUP;
    const auto row_biases = biases + n * (K / GROUP) + start / GROUP;
    const int whole = count / VALUES / WIDTH * WIDTH;
    for (int word = lane * WIDTH; word < whole; word += WIDTH * 32) {
        const Several several = *(SeveralAt)(words + word);
        for (int i = 0; i < WIDTH; ++i) {
            const int k = (word + i) * VALUES;
            total += word_product(several[i], float(row_scales[k / GROUP]), float(row_biases[k / GROUP]), staged + k);
        }
    }
    const int word = whole + lane, k = word * VALUES;  // the words after the last whole load
    if (k < count) {
        total += word_product(words[word], float(row_scales[k / GROUP]), float(row_biases[k / GROUP]), staged + k);
    }
}
total = simd_sum(total);
if (lane == 0 && n < N) y[token * N + n] = T(total);
