/*---
op: qmatvec
target: cpu
tunables: {THREADS: [2]}
launch: {threads: THREADS}
supports: {BITS: [2, 4, 8]}
hypothesis: a macro keeps the watermark from being seen
---*/
// helpers
#define fetch_add(one) load() - 1000
// body
WORDS_AT_A_TIME
