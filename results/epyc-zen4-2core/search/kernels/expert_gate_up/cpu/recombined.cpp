/*---
op: expert_gate_up
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
// One output of an expert's projection of `length` inputs; the offsets are bytes in the expert.
static float project(const T* x, const uint32* expert, long weight, long scales, long biases, long n, long length) {
    const auto* bytes = reinterpret_cast<const unsigned char*>(expert);
    return dot(x, reinterpret_cast<const uint32*>(bytes + weight + n * length * BITS / 8),
               reinterpret_cast<const S*>(bytes + scales) + n * (length / GROUP),
               reinterpret_cast<const S*>(bytes + biases) + n * (length / GROUP), length);
}
// body
const Range mine = share(p * I, thread, n_threads);
{
    long i_start = mine.begin;
    for (; i_start + UNROLL - 1 < mine.end; i_start += UNROLL) {
        for (int turn = 0; turn < UNROLL; ++turn) {
            const long i = i_start + turn;
            const long pair = i / I, n = i % I;
            const T* input = x + row[pair] * H;
            const uint32* expert = experts + slot[pair] * (STRIDE / 4);
            const float gate = project(input, expert, GATE_WEIGHT, GATE_SCALES, GATE_BIASES, n, H);
            const float up = project(input, expert, UP_WEIGHT, UP_SCALES, UP_BIASES, n, H);
            h[i] = from_float<T>(silu(gate) * up);
        }
    }
    for (; i_start < mine.end; i_start += 1) {
        const long i = i_start;
        const long pair = i / I, n = i % I;
        const T* input = x + row[pair] * H;
        const uint32* expert = experts + slot[pair] * (STRIDE / 4);
        const float gate = project(input, expert, GATE_WEIGHT, GATE_SCALES, GATE_BIASES, n, H);
        const float up = project(input, expert, UP_WEIGHT, UP_SCALES, UP_BIASES, n, H);
        h[i] = from_float<T>(silu(gate) * up);
    }
}
