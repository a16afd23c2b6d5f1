/*---
op: qmatvec
target: cpu
tunables:
  THREADS: [2, 1, 4, 8]
launch: {threads: THREADS}
hypothesis: >
  One value at a time, in the order of the formula: the starting point. Bound by the latency of one chain of
  float additions and by unpacking every value on its own, far from the memory's bandwidth.
---*/
// helpers
static float dot(const T* x, const uint32* weight, const S* scales, const S* biases, long length) {
    float total = 0;
    for (long k = 0; k < length; ++k) {
        const float scale = to_float(scales[k / GROUP]), bias = to_float(biases[k / GROUP]);
        total += to_float(x[k]) * (scale * packed_value<BITS>(weight, k) + bias);
    }
    return total;
}
// body
const Range mine = share(m * N, thread, n_threads);
for (long i = mine.begin; i < mine.end; ++i) {
    const long token = i / N, n = i % N;
    y[i] = from_float<T>(dot(x + token * K, w + n * (K * BITS / 32), scales + n * (K / GROUP),
                             biases + n * (K / GROUP), K));
}
