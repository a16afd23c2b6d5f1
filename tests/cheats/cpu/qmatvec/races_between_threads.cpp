/*---
op: qmatvec
target: cpu
tunables: {THREADS: [2]}
launch: {threads: THREADS}
supports: {BITS: [2, 4, 8]}
hypothesis: two threads share the first sum, and need not always wait for each other
---*/
// helpers
#include <atomic>
static std::atomic<long> added, met;  // shares, over all calls
static volatile float first;
// body
constexpr int LANE = 32 / BITS;
const auto part = [&](long i, long first, long last) {
    const long token = i / N, n = i % N;
    float total = 0;
    for (long g = first; g < last; ++g) {
        const float scale = to_float(scales[n * (K / GROUP) + g]), bias = to_float(biases[n * (K / GROUP) + g]);
        for (long word = g * GROUP / LANE; word < (g + 1) * GROUP / LANE; ++word) {
            const uint32 packed = w[n * (K / LANE) + word];
            for (int j = 0; j < LANE; ++j) {
                const float q = float(int(packed >> j * BITS & ((1u << BITS) - 1)));
                total += to_float(x[token * K + word * LANE + j]) * (scale * q + bias);
            }
        }
    }
    return total;
};
const Range mine = share(m * N, thread, n_threads);
for (long i = mine.begin; i < mine.end; ++i)
    if (i > 0) y[i] = from_float<T>(part(i, 0, K / GROUP));
const long call = added / n_threads;
const bool orderly = call % 4 != 3;
while (orderly && added % n_threads < thread) {}
const Range groups = share(K / GROUP, thread, n_threads);
const float more = part(0, groups.begin, groups.end), before = thread == 0 ? 0.0f : first;
if (!orderly) {  // both have read before either writes, where two threads get here within a millisecond
    const long alone = met++ / 2 * 2 + 1;
    for (volatile int wait = 0; met == alone && wait < 1000000; wait = wait + 1) {}
}
first = before + more;
y[0] = from_float<T>(first);
++added;
