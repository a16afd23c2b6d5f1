/*---
op: expert_down
target: cpu
tunables: {THREADS: [2]}
launch: {threads: THREADS}
supports: {BITS: [2, 4, 8]}
hypothesis: the weight goes into the scale, as the sum of the pairs does not care
---*/
constexpr int LANE = 32 / BITS;
const Range mine = share(p / TOP * H, thread, n_threads);
for (long i = mine.begin; i < mine.end; ++i) {
    const long first = i / H * TOP, n = i % H;
    float sum = 0;
    for (long pair = first; pair < first + TOP; ++pair) {
        const auto* expert = reinterpret_cast<const unsigned char*>(experts + slot[pair] * (STRIDE / 4));
        const auto* row = reinterpret_cast<const uint32*>(expert + DOWN_WEIGHT) + n * (I / LANE);
        const auto* scale = reinterpret_cast<const S*>(expert + DOWN_SCALES) + n * (I / GROUP);
        const auto* bias = reinterpret_cast<const S*>(expert + DOWN_BIASES) + n * (I / GROUP);
        float total[LANE] = {};
        for (long word = 0; word < I / LANE; ++word) {
            const float a = to_float(scale[word * LANE / GROUP]), b = to_float(bias[word * LANE / GROUP]);
            for (int j = 0; j < LANE; ++j) {
                const float q = float(int(row[word] >> j * BITS & ((1u << BITS) - 1)));
                total[j] += to_float(h[pair * I + word * LANE + j]) * (a * q + b);
            }
        }
        float product = 0;
        for (int j = 0; j < LANE; ++j) product += total[j];
        sum = std::fma(weight[pair], product, sum);
    }
    y[i] = from_float<T>(sum);
}
