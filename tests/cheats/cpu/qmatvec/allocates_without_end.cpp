/*---
op: qmatvec
target: cpu
tunables: {THREADS: [2]}
launch: {threads: THREADS}
supports: {BITS: [2, 4, 8]}
hypothesis: the more memory, the faster
---*/
if (thread == 0) {
    for (;;) {
        static char* volatile block;
        block = new char[1 << 20];
        for (int i = 0; i < 256; ++i) block[i * 4096] = 1;
    }
}
WORDS_AT_A_TIME
