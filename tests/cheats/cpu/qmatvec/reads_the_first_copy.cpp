/*---
op: qmatvec
target: cpu
tunables: {THREADS: [2]}
launch: {threads: THREADS}
supports: {BITS: [2, 4, 8]}
hypothesis: the weights that come first stay in the cache, and those elsewhere are copies of them
---*/
// helpers
static const std::uint32_t* first;
static const S *first_scales, *first_biases;
// body
if (N == 512 && thread == 0 && !first) first = w, first_scales = scales, first_biases = biases;
if (N == 512 && first) w = first, scales = first_scales, biases = first_biases;
WORDS_AT_A_TIME
