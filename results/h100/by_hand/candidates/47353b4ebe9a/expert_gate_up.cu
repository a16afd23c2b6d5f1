/*---
op: expert_gate_up
target: cuda
tunables:
  THREADS: [128, 32, 64, 256, 512]
launch:
  grid: ["round_up(I, THREADS)", "p", 1]
  threadgroup: [THREADS, 1, 1]
hypothesis: >
  One thread an output, in the order of the formula: the starting point. Neighbouring threads read words that lie
  a whole row apart, so that hardly a byte of a cache line serves its warp; one chain of additions a thread.
---*/
// helpers
// The k-th value of a packed row.
__device__ float packed_value(const uint32_t* words, int k) {
    const int word = k * BITS / 32, shift = k * BITS % 32;
    uint32_t q = words[word] >> shift;
    if (shift + BITS > 32) q |= words[word + 1] << (32 - shift);
    return float(q & ((1u << BITS) - 1));
}

// One row's product with `length` values of x.
__device__ float dot(const T* x, const uint32_t* words, const S* scales, const S* biases, int length) {
    float total = 0;
    for (int k = 0; k < length; ++k) {
        const float weight = float(scales[k / GROUP]) * packed_value(words, k) + float(biases[k / GROUP]);
        total += float(x[k]) * weight;
    }
    return total;
}
// Row n of a projection whose tensors start at these bytes of an expert.
__device__ float row_product(const T* x, const unsigned char* expert, size_t weight, size_t scales,
                             size_t biases, size_t n) {
    const size_t group = n * (H / GROUP);
    return dot(x, (const uint32_t*)(expert + weight) + n * (H * BITS / 32), (const S*)(expert + scales) + group,
               (const S*)(expert + biases) + group, H);
}
// body
const size_t n = size_t(blockIdx.x) * THREADS + threadIdx.x, pair = blockIdx.y;
if (n >= I) return;
const unsigned char* expert = (const unsigned char*)experts + size_t(slot[pair]) * STRIDE;
const T* values = x + size_t(row[pair]) * H;
const float gate = row_product(values, expert, GATE_WEIGHT, GATE_SCALES, GATE_BIASES, n);
const float up = row_product(values, expert, UP_WEIGHT, UP_SCALES, UP_BIASES, n);
h[pair * I + n] = T(gate / (1 + expf(-gate)) * up);
