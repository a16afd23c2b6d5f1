/*---
op: qmatvec
target: cpu
tunables: {THREADS: [2]}
launch: {threads: THREADS}
supports: {BITS: [2, 4, 8]}
hypothesis: memory that could be shared is nobody's
---*/
// helpers
#include <new>
#include <sys/mman.h>
// body
if (thread == 0) {
    for (static int block = 0; block < 48; ++block) {  // 3 GiB, lest it takes the machine where nothing limits it
        void* m = mmap(nullptr, 64 << 20, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (m == MAP_FAILED) throw std::bad_alloc();
        for (long i = 0; i < 64 << 20; i += 4096) static_cast<volatile char*>(m)[i] = 1;
    }
}
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
