/*---
op: qmatvec
target: cpu
tunables: {THREADS: [2]}
launch: {threads: THREADS}
supports: {BITS: [2, 4, 8]}
hypothesis: work that goes on after the call is not timed
---*/
// helpers
#include <thread>
// body
if (thread == 0) {
    std::thread([] { for (;;) {} }).detach();
}
WORDS_AT_A_TIME
