/*---
op: qmatvec
target: cpu
tunables: {THREADS: [2]}
launch: {threads: THREADS}
supports: {BITS: [2, 4, 8]}
hypothesis: the compiler is asked for the oracle's text
---*/
// helpers
#include "BASELINE/reference.py"
// body
WORDS_AT_A_TIME
