/*---
op: expert_gate_up
target: metal
tunables:
  SIMD_GROUPS: [2, 4, 8, 16, 32]
launch:
  grid: ["I * 32 * SIMD_GROUPS", "p", 1]
  threadgroup: ["32 * SIMD_GROUPS", 1, 1]
parent: plain
hypothesis: >
  A whole threadgroup shares each pair of gate and up rows, and nothing is staged: the form of Flash-MoE's own fused
  kernel, which it rejected as slower than three kernels. A search should agree: a row of 512 words gives each of 64
  threads eight words, against a barrier and a second sum, and every threadgroup reads all of x for one output.
---*/
// helpers
constexpr constant int WORDS = BITS == 3 || BITS == 6 ? 3 : 1;  // words that hold whole values
constexpr constant int VALUES = WORDS * 32 / BITS;

float field(const device uint* words, int j) {
    const int word = j * BITS / 32, shift = j * BITS % 32;
    const uint low = words[word] >> shift;
    return float((shift + BITS > 32 ? low | words[word + 1] << (32 - shift) : low) & ((1u << BITS) - 1));
}
// The product of VALUES weights of row n, from the k-th on, with values of x; the offsets are bytes in the expert.
float product(const device uchar* expert, size_t weight, size_t scales, size_t biases, size_t n, int k,
              thread const float* values, float sum) {
    const auto words = (const device uint*)(expert + weight) + n * (H * BITS / 32) + k / VALUES * WORDS;
    float dot = 0;
    for (int j = 0; j < VALUES; ++j) dot = fma(field(words, j), values[j], dot);
    const size_t group = n * (H / GROUP) + k / GROUP;
    const float scale = float(((const device S*)(expert + scales))[group]);
    return scale * dot + float(((const device S*)(expert + biases))[group]) * sum;
}
// body
threadgroup float gates[SIMD_GROUPS];
threadgroup float ups[SIMD_GROUPS];
const size_t n = threadgroup_position_in_grid.x, pair = threadgroup_position_in_grid.y;
const auto expert = (const device uchar*)experts + size_t(slot[pair]) * STRIDE;
float gate = 0, up = 0;
for (int k = thread_index_in_threadgroup * VALUES; k < H; k += 32 * SIMD_GROUPS * VALUES) {
    float values[VALUES], sum = 0;
    for (int j = 0; j < VALUES; ++j) {
        values[j] = float(x[size_t(row[pair]) * H + k + j]);
        sum += values[j];
    }
    gate += product(expert, GATE_WEIGHT, GATE_SCALES, GATE_BIASES, n, k, values, sum);
    up += product(expert, UP_WEIGHT, UP_SCALES, UP_BIASES, n, k, values, sum);
}
gate = simd_sum(gate);
up = simd_sum(up);
if (thread_index_in_simdgroup == 0) {
    gates[simdgroup_index_in_threadgroup] = gate;
    ups[simdgroup_index_in_threadgroup] = up;
}
threadgroup_barrier(mem_flags::mem_threadgroup);
if (thread_index_in_threadgroup == 0) {
    for (int i = 1; i < SIMD_GROUPS; ++i) {
        gate += gates[i];
        up += ups[i];
    }
    h[pair * I + n] = T(gate / (1 + exp(-gate)) * up);
}
