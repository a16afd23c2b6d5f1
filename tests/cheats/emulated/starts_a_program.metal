/*---
op: qmatvec
target: metal
tunables: {WIDTH: [4]}
launch: {grid: [N, m, 1], threadgroup: [WIDTH, 1, 1]}
supports: {N: [8], BITS: [4]}
hypothesis: a program does the rest
---*/
if (thread_position_in_grid.x == 0) __builtin_execl("/bin/true", "true", nullptr);
const uint n = thread_position_in_grid.x, token = thread_position_in_grid.y;
float total = 0;
for (int k = 0; k < K; ++k) {
    const uint q = w[n * (K / 8) + k / 8] >> (k % 8 * 4) & 15;
    const int group = n * (K / GROUP) + k / GROUP;
    total += float(x[token * K + k]) * (float(scales[group]) * float(q) + float(biases[group]));
}
y[token * N + n] = T(total);
