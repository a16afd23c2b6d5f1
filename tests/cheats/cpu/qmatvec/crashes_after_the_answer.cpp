/*---
op: qmatvec
target: cpu
tunables: {THREADS: [2]}
launch: {threads: THREADS}
supports: {BITS: [2, 4, 8]}
hypothesis: once the answer is written the rest does not count
---*/
// helpers
struct Last {
    ~Last() { *reinterpret_cast<volatile int*>(8) = 1; }
};
static Last last;
// body
WORDS_AT_A_TIME
