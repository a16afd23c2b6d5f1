/*---
op: qmatvec
target: cpu
tunables: {THREADS: [2]}
launch: {threads: THREADS}
supports: {BITS: [2, 4, 8]}
hypothesis: nobody owns what lies in front
---*/
WORDS_AT_A_TIME
if (thread == 0) y[-1] = from_float<T>(0);
