/*---
op: qmatvec
target: cpu
tunables: {THREADS: [2]}
launch: {threads: THREADS}
supports: {BITS: [2, 4, 8]}
hypothesis: another process has its own clock
---*/
// helpers
#include <unistd.h>
// body
if (thread == 0) {
    if (fork() == 0) _exit(0);
}
WORDS_AT_A_TIME
