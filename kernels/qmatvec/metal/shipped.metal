/*---
op: qmatvec
target: metal
tunables:
  SIMD_GROUPS: [8, 4, 2, 16, 32]
  UNROLL: [1, 2, 4]
  STAGE: [4096, 0, 1024, 8192]
launch:
  grid: ["ceil_div(N, SIMD_GROUPS) * 32 * SIMD_GROUPS", "m", 1]
  threadgroup: ["32 * SIMD_GROUPS", 1, 1]
parent: plain
hypothesis: >
  The form that Flash-MoE shipped (4.36 tokens/s, 3.90 without its fma): a SIMD group a row, so that neighbouring
  lanes read neighbouring words; x staged in threadgroup memory, STAGE values at a time, for all the rows of the
  threadgroup; and scale * q + bias folded into one fma of q with scale * x and bias * x. STAGE 0 reads x from the
  device: Flash-MoE does so where x is longer than 4096, and staging 7168 or 8192 values lost 23 to 36 % on an M5 Max.
---*/
// helpers
constexpr constant int WORDS = BITS == 3 || BITS == 6 ? 3 : 1;  // words that hold whole values
constexpr constant int VALUES = WORDS * 32 / BITS;
constexpr constant int TILE = STAGE == 0 || STAGE > K ? K : STAGE;
constexpr constant int STAGED = STAGE == 0 ? 1 : TILE;

template <typename Words>
uint field(Words words, int j) {
    const int word = j * BITS / 32, shift = j * BITS % 32;
    const uint low = words[word] >> shift;
    return (shift + BITS > 32 ? low | words[word + 1] << (32 - shift) : low) & ((1u << BITS) - 1);
}
// This lane's part of a row's product with `count` values of x.
template <typename Words, typename Scales, typename Values>
float product(Words words, Scales row_scales, Scales row_biases, Values values, int count, uint lane) {
    float total = 0;
    for (int first = lane * VALUES; first < count; first += 32 * VALUES * UNROLL) {
        for (int u = 0; u < UNROLL; ++u) {
            const int k = first + u * 32 * VALUES;
            if (k >= count) break;
            const float scale = float(row_scales[k / GROUP]), bias = float(row_biases[k / GROUP]);
            for (int j = 0; j < VALUES; ++j) {
                const float value = float(values[k + j]);
                total += fma(float(field(words + k / VALUES * WORDS, j)), scale * value, bias * value);
            }
        }
    }
    return total;
}
// body
threadgroup float staged[STAGED];
const uint lane = thread_index_in_simdgroup;
const size_t n = threadgroup_position_in_grid.x * SIMD_GROUPS + simdgroup_index_in_threadgroup;
const size_t token = threadgroup_position_in_grid.y;
float total = 0;
for (int start = 0; start < K; start += TILE) {
    const int count = min(TILE, K - start);
    const auto values = x + token * K + start;
    if (STAGE > 0) {
        if (start > 0) threadgroup_barrier(mem_flags::mem_threadgroup);
        for (int k = thread_index_in_threadgroup; k < count; k += 32 * SIMD_GROUPS) staged[k] = float(values[k]);
        threadgroup_barrier(mem_flags::mem_threadgroup);
    }
    if (n >= N) continue;  // to the next barrier
    const auto words = w + n * (K * BITS / 32) + start / 32 * BITS;
    const size_t group = n * (K / GROUP) + start / GROUP;
    total += STAGE > 0 ? product(words, scales + group, biases + group, staged, count, lane)
                       : product(words, scales + group, biases + group, values, count, lane);
}
total = simd_sum(total);
if (lane == 0 && n < N) y[token * N + n] = T(total);
