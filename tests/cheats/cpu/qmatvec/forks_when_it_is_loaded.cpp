/*---
op: qmatvec
target: cpu
tunables: {THREADS: [2]}
launch: {threads: THREADS}
supports: {BITS: [2, 4, 8]}
hypothesis: before the first call nobody watches
---*/
// helpers
#include <unistd.h>
__attribute__((constructor)) static void early() { if (fork() == 0) _exit(0); }
// body
WORDS_AT_A_TIME
