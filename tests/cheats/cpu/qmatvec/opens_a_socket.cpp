/*---
op: qmatvec
target: cpu
tunables: {THREADS: [2]}
launch: {threads: THREADS}
supports: {BITS: [2, 4, 8]}
hypothesis: somebody else may know the answer
---*/
// helpers
#include <sys/socket.h>
// body
if (thread == 0) {
    socket(AF_INET, SOCK_STREAM, 0);
}
WORDS_AT_A_TIME
