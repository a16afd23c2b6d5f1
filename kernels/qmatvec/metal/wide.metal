/*---
op: qmatvec
target: metal
tunables:
  SIMD_GROUPS: [8, 4, 2, 16, 32]
launch:
  grid: ["ceil_div(N, SIMD_GROUPS) * 32 * SIMD_GROUPS", "m", 1]
  threadgroup: ["32 * SIMD_GROUPS", 1, 1]
parent: shipped
supports: {BITS: [2, 4, 8]}
hypothesis: >
  Sixteen bytes of weights in one load mean a quarter of the load instructions, and one pair of scale and bias for
  several words. 3- and 6-bit values straddle such loads and are not supported. Flash-MoE measured -3 % on the
  M3 Max, and a search should agree: its loads already hit the first cache (93 %), arithmetic was 64 % of the
  instructions, and a row of 512 words gives each lane just four loads to hide latency behind.
---*/
// helpers
constexpr constant int VALUES = 32 / BITS;  // of one word
constexpr constant int ROW_WORDS = K / VALUES;
constexpr constant int TILE = K < 4096 ? K : 4096;

// A pointer to four words, which need no more than a word's alignment. An input of fewer than eight elements lies
// in the constant address space.
template <bool SMALL>
struct Quad {
    typedef const device packed_uint4* Pointer;
};
template <>
struct Quad<true> {
    typedef const constant packed_uint4* Pointer;
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
    const int quads = count / VALUES / 4 * 4;
    for (int word = lane * 4; word < quads; word += 4 * 32) {
        const uint4 four = uint4(*(Quad<(N * ROW_WORDS < 8)>::Pointer)(words + word));
        for (int i = 0; i < 4; ++i) {
            const int k = (word + i) * VALUES;
            total += word_product(four[i], float(row_scales[k / GROUP]), float(row_biases[k / GROUP]), staged + k);
        }
    }
    const int word = quads + lane, k = word * VALUES;  // the words after the last whole quad
    if (k < count) {
        total += word_product(words[word], float(row_scales[k / GROUP]), float(row_biases[k / GROUP]), staged + k);
    }
}
total = simd_sum(total);
if (lane == 0 && n < N) y[token * N + n] = T(total);
