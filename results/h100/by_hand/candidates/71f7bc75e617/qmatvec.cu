/*---
op: qmatvec
target: cuda
tunables:
  THREADS: [128, 32, 64, 256, 512]
launch:
  grid: ["round_up(N, THREADS)", "m", 1]
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
// body
const size_t n = size_t(blockIdx.x) * THREADS + threadIdx.x, token = blockIdx.y;
if (n >= N) return;
const size_t group = n * (K / GROUP);
y[token * N + n] = T(dot(x + token * K, w + n * (K * BITS / 32), scales + group, biases + group, K));
