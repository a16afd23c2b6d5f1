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
  Gate and up walk x together: each value of x is loaded once for both rows, and two independent chains of sums hide
  each other's latency, for the price of two streams of weights and twice the registers. Flash-MoE's fused kernel was
  slower, but it gave each row a whole threadgroup (see split); in a SIMD group a search may find it faster.
---*/
// helpers
constexpr constant int WORDS = BITS == 3 || BITS == 6 ? 3 : 1;  // words that hold whole values
constexpr constant int VALUES = WORDS * 32 / BITS;
constexpr constant int TILE = STAGE == 0 || STAGE > H ? H : STAGE;
constexpr constant int STAGED = STAGE == 0 ? 1 : TILE;

float field(const device uint* words, int j) {
    const int word = j * BITS / 32, shift = j * BITS % 32;
    const uint low = words[word] >> shift;
    return float((shift + BITS > 32 ? low | words[word + 1] << (32 - shift) : low) & ((1u << BITS) - 1));
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
// This lane's part of both rows' products with `count` values of x: gate's in x, up's in y.
template <typename Values>
float2 products(Rows gates, Rows ups, Values values, int count, uint lane) {
    float gate = 0, up = 0;
    for (int k = lane * VALUES; k < count; k += 32 * VALUES) {
        const auto gate_words = gates.words + k / VALUES * WORDS, up_words = ups.words + k / VALUES * WORDS;
        const float gate_scale = float(gates.scales[k / GROUP]), gate_bias = float(gates.biases[k / GROUP]);
        const float up_scale = float(ups.scales[k / GROUP]), up_bias = float(ups.biases[k / GROUP]);
        for (int j = 0; j < VALUES; ++j) {
            const float value = float(values[k + j]);
            gate += fma(field(gate_words, j), gate_scale * value, gate_bias * value);
            up += fma(field(up_words, j), up_scale * value, up_bias * value);
        }
    }
    return float2(gate, up);
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
    const float2 both =
        STAGE > 0 ? products(gates, ups, staged, count, lane) : products(gates, ups, values, count, lane);
    gate += both.x;
    up += both.y;
}
gate = simd_sum(gate);
up = simd_sum(up);
if (lane == 0 && n < I) h[pair * I + n] = T(gate / (1 + exp(-gate)) * up);
