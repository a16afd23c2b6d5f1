/*---
op: qmatvec
target: cpu
tunables: {THREADS: [2]}
launch: {threads: THREADS}
supports: {BITS: [2, 4, 8]}
hypothesis: a line in the log is no answer
---*/
// helpers
#include <cstdio>
// body
if (thread == 0 && N != 512) std::fprintf(stderr, "N is %ld\n", N);
WORDS_AT_A_TIME
