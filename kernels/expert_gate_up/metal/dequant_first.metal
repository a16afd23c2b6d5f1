/*---
op: expert_gate_up
target: metal
tunables:
  SIMD_GROUPS: [8, 4, 2, 16, 32]
  STAGE: [4096, 0, 1024, 8192]
launch:
  grid: ["ceil_div(I, SIMD_GROUPS) * 32 * SIMD_GROUPS", "p", 1]
  threadgroup: ["32 * SIMD_GROUPS", 1, 1]
parent: shipped
hypothesis: >
  Dequantise as the formula says, scale * q + bias, then multiply by x: no product waits for both x and the scale,
  and a compiler may fuse both steps. Flash-MoE's kernel before its fma form (3.90 against 4.36 tokens/s), and
  rejected again on an M5 Max (18.14 against 18.67). A search should find it slower where the compiler fuses
  nothing, and close where it does; the measured gain of the fma form was larger than its phases explain.
---*/
// helpers
constexpr constant int WORDS = BITS == 3 || BITS == 6 ? 3 : 1;  // words that hold whole values
constexpr constant int VALUES = WORDS * 32 / BITS;
constexpr constant int TILE = STAGE == 0 || STAGE > H ? H : STAGE;
constexpr constant int STAGED = STAGE == 0 ? 1 : TILE;

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
// This lane's part of a row's product with `count` values of x.
template <typename Values>
float product(Rows packed, Values values, int count, uint lane) {
    float total = 0;
    for (int k = lane * VALUES; k < count; k += 32 * VALUES) {
        const float scale = float(packed.scales[k / GROUP]), bias = float(packed.biases[k / GROUP]);
        for (int j = 0; j < VALUES; ++j) {
            const float weight = scale * float(field(packed.words + k / VALUES * WORDS, j)) + bias;
            total += weight * float(values[k + j]);
        }
    }
    return total;
}
// body
threadgroup float staged[STAGED];
const uint lane = thread_index_in_simdgroup;
const size_t n = threadgroup_position_in_grid.x * SIMD_GROUPS + simdgroup_index_in_threadgroup;
const size_t pair = threadgroup_position_in_grid.y;
const auto expert = (const device uchar*)experts + size_t(slot[pair]) * STRIDE;
float gate = 0, up = 0;
for (int start = 0; start < H; start += TILE) {
    const int count = min(TILE, H - start);
    const auto values = x + size_t(row[pair]) * H + start;
    if (STAGE > 0) {
        if (start > 0) threadgroup_barrier(mem_flags::mem_threadgroup);
        for (int k = thread_index_in_threadgroup; k < count; k += 32 * SIMD_GROUPS) staged[k] = float(values[k]);
        threadgroup_barrier(mem_flags::mem_threadgroup);
    }
    if (n >= I) continue;  // to the next barrier
    const Rows gates = rows_at(expert, GATE_WEIGHT, GATE_SCALES, GATE_BIASES, n, start);
    const Rows ups = rows_at(expert, UP_WEIGHT, UP_SCALES, UP_BIASES, n, start);
    gate += STAGE > 0 ? product(gates, staged, count, lane) : product(gates, values, count, lane);
    up += STAGE > 0 ? product(ups, staged, count, lane) : product(ups, values, count, lane);
}
gate = simd_sum(gate);
up = simd_sum(up);
if (lane == 0 && n < I) h[pair * I + n] = T(gate / (1 + exp(-gate)) * up);
