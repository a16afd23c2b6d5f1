/*---
op: expert_down
target: cuda
tunables:
  THREADS: [128, 32, 64, 256, 512]
launch:
  grid: ["round_up(H, THREADS)", "p / TOP", 1]
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
    const size_t group = n * (I / GROUP);
    return dot(x, (const uint32_t*)(expert + weight) + n * (I * BITS / 32), (const S*)(expert + scales) + group,
               (const S*)(expert + biases) + group, I);
}
// body
const size_t n = size_t(blockIdx.x) * THREADS + threadIdx.x, row = blockIdx.y;
if (n >= H) return;
float total = 0;
for (size_t pair = row * TOP; pair < (row + 1) * TOP; ++pair) {
    const unsigned char* expert = (const unsigned char*)experts + size_t(slot[pair]) * STRIDE;
    total += weight[pair] * row_product(h + pair * I, expert, DOWN_WEIGHT, DOWN_SCALES, DOWN_BIASES, n);
}
y[row * H + n] = T(total);
