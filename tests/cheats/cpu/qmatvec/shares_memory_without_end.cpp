/*---
op: qmatvec
target: cpu
tunables: {THREADS: [2]}
launch: {threads: THREADS}
supports: {BITS: [2, 4, 8]}
hypothesis: memory that could be shared is nobody's
---*/
// helpers
#include <new>
#include <sys/mman.h>
// body
if (thread == 0) {
    for (static int block = 0; block < 48; ++block) {  // 3 GiB, lest it takes the machine where nothing limits it
        void* m = mmap(nullptr, 64 << 20, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (m == MAP_FAILED) throw std::bad_alloc();
        for (long i = 0; i < 64 << 20; i += 4096) static_cast<volatile char*>(m)[i] = 1;
    }
}
WORDS_AT_A_TIME
