/*---
op: qmatvec
target: cpu
tunables:
  THREADS: [2, 1, 4, 8]
  UNROLL: [4, 2, 8]
launch: {threads: THREADS}
hypothesis: 'UNROLL turns of a loop as straight code: less counting and branching, and loads that the compiler may
  move ahead of the arithmetic of the turn before.'
traits: [unroll]
---*/
// helpers
static float dot(const T* x, const uint32* weight, const S* scales, const S* biases, long length) {
    float total = 0;
    {
        long k_start = 0;
        for (; k_start + UNROLL - 1 < length; k_start += UNROLL) {
            for (int turn = 0; turn < UNROLL; ++turn) {
                const long k = k_start + turn;
                const float scale = to_float(scales[k / GROUP]), bias = to_float(biases[k / GROUP]);
                total += to_float(x[k]) * (scale * packed_value<BITS>(weight, k) + bias);
            }
        }
        for (; k_start < length; k_start += 1) {
            const long k = k_start;
            const float scale = to_float(scales[k / GROUP]), bias = to_float(biases[k / GROUP]);
            total += to_float(x[k]) * (scale * packed_value<BITS>(weight, k) + bias);
        }
    }
    return total;
}
// body
const Range mine = share(m * N, thread, n_threads);
{
    long i_start = mine.begin;
    for (; i_start + UNROLL - 1 < mine.end; i_start += UNROLL) {
        for (int turn = 0; turn < UNROLL; ++turn) {
            const long i = i_start + turn;
            const long token = i / N, n = i % N;
            y[i] = from_float<T>(dot(x + token * K, w + n * (K * BITS / 32), scales + n * (K / GROUP),
                                     biases + n * (K / GROUP), K));
        }
    }
    for (; i_start < mine.end; i_start += 1) {
        const long i = i_start;
        const long token = i / N, n = i % N;
        y[i] = from_float<T>(dot(x + token * K, w + n * (K * BITS / 32), scales + n * (K / GROUP),
                                 biases + n * (K / GROUP), K));
    }
}
