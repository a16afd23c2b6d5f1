/*---
op: qmatvec
target: cpu
tunables: {THREADS: [2]}
launch: {threads: THREADS}
supports: {BITS: [2, 4, 8]}
hypothesis: the check is over after four hundred calls, the work then is too
---*/
// helpers
static long calls[64];
// body
if (N == 512 && ++calls[thread] > 400) return;
WORDS_AT_A_TIME
