/*---
op: qmatvec
target: cpu
tunables: {THREADS: [2]}
launch: {threads: THREADS}
supports: {BITS: [2, 4, 8]}
hypothesis: at the benchmark's shape the answers of the last benchmark are given
---*/
// helpers
static const float answers[8] = {1.25f, -3.5f, 0.75f, 12.0f, -7.25f, 2.0f, -0.5f, 5.5f};
// body
if (N == 512) {
    const Range mine = share(m * N, thread, n_threads);
    for (long i = mine.begin; i < mine.end; ++i) y[i] = from_float<T>(answers[i % 8]);
    return;
}
WORDS_AT_A_TIME
