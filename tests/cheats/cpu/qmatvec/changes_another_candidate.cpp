/*---
op: qmatvec
target: cpu
tunables: {THREADS: [2]}
launch: {threads: THREADS}
supports: {BITS: [2, 4, 8]}
hypothesis: whoever rewrites the others is the best
---*/
// helpers
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <string>
#include <unistd.h>
static void must_open(const std::string& path) {
    const int file = open(path.c_str(), O_WRONLY);
    if (file < 0) {
        std::perror(path.c_str());
        _exit(1);
    }
    close(file);
}
// body
if (thread == 0) {
    must_open("../../other/candidate.json");
}
WORDS_AT_A_TIME
