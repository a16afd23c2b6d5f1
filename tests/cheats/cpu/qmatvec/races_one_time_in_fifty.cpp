/*---
op: qmatvec
target: cpu
tunables: {THREADS: [2]}
launch: {threads: THREADS}
supports: {BITS: [2, 4, 8]}
hypothesis: two threads seldom meet at the same place
---*/
// helpers
static long calls = 41;  // stands for what the threads' timing decides
static bool due;
// body
if (thread == 0) due = ++calls % 50 == 0;
WORDS_AT_A_TIME
if (thread == 0 && due) y[0] = from_float<T>(to_float(y[0]) * 1.5f + 1.0f);
