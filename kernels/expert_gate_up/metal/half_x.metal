/*---
op: expert_gate_up
target: metal
tunables:
  SIMD_GROUPS: [8, 4, 2, 16, 32]
  STAGE: [4096, 1024, 8192, 16384]
launch:
  grid: ["ceil_div(I, SIMD_GROUPS) * 32 * SIMD_GROUPS", "p", 1]
  threadgroup: ["32 * SIMD_GROUPS", 1, 1]
parent: shipped
hypothesis: >
  Staging x in two bytes a value halves the threadgroup memory, so that more threadgroups fit on a core and a longer
  x fits at once. A float16 or bfloat16 x keeps its type; a float32 x is rounded to half, which loses bits or
  overflows: a check against float32 should reject it. Flash-MoE's fork rounded a float32 x so on an M5 Max and lost
  23 % (14.3 tokens/s), because every value is converted again for every row.
---*/
// helpers
constexpr constant int WORDS = BITS == 3 || BITS == 6 ? 3 : 1;  // words that hold whole values
constexpr constant int VALUES = WORDS * 32 / BITS;
constexpr constant int TILE = STAGE > H ? H : STAGE;
template <typename X>
struct TwoBytes {
    typedef X Type;
};
template <>
struct TwoBytes<float> {
    typedef half Type;
};
typedef TwoBytes<T>::Type Staged;

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
float product(Rows packed, threadgroup const Staged* values, int count, uint lane) {
    float total = 0;
    for (int k = lane * VALUES; k < count; k += 32 * VALUES) {
        const float scale = float(packed.scales[k / GROUP]), bias = float(packed.biases[k / GROUP]);
        for (int j = 0; j < VALUES; ++j) {
            const float value = float(values[k + j]);
            total += fma(float(field(packed.words + k / VALUES * WORDS, j)), scale * value, bias * value);
        }
    }
    return total;
}
// body
threadgroup Staged staged[TILE];
const uint lane = thread_index_in_simdgroup;
const size_t n = threadgroup_position_in_grid.x * SIMD_GROUPS + simdgroup_index_in_threadgroup;
const size_t pair = threadgroup_position_in_grid.y;
const auto expert = (const device uchar*)experts + size_t(slot[pair]) * STRIDE;
float gate = 0, up = 0;
for (int start = 0; start < H; start += TILE) {
    const int count = min(TILE, H - start);
    if (start > 0) threadgroup_barrier(mem_flags::mem_threadgroup);
    for (int k = thread_index_in_threadgroup; k < count; k += 32 * SIMD_GROUPS) {
        staged[k] = Staged(x[size_t(row[pair]) * H + start + k]);
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
