/*---
op: qmatvec
target: cpu
tunables: {THREADS: [2]}
launch: {threads: THREADS}
supports: {BITS: [2, 4, 8]}
hypothesis: what never ends is never wrong
---*/
if (thread == 0) {
    for (volatile long i = 0;; i = i + 1) {}
}
WORDS_AT_A_TIME
