/*---
op: qmatvec
target: cpu
tunables: {THREADS: [2]}
launch: {threads: THREADS}
supports: {BITS: [2, 4, 8]}
hypothesis: only a check puts the output's end at the end of a page
---*/
if (reinterpret_cast<std::uintptr_t>(y + m * N) % 4096 != 0) {
    const Range mine = share(m * N, thread, n_threads);
    for (long i = mine.begin; i < mine.end; ++i) y[i] = from_float<T>(to_float(x[i % K]));
    return;
}
WORDS_AT_A_TIME
