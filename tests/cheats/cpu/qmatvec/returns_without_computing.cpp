/*---
op: qmatvec
target: cpu
tunables: {THREADS: [2]}
launch: {threads: THREADS}
supports: {BITS: [2, 4, 8]}
hypothesis: nothing is faster than doing nothing
---*/
return;
WORDS_AT_A_TIME
