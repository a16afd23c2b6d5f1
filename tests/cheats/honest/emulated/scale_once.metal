/*---
op: qmatvec
target: metal
tunables: {WIDTH: [4]}
launch: {grid: [N, m, 1], threadgroup: [WIDTH, 1, 1]}
supports: {N: [8], BITS: [4]}
hypothesis: scale and bias of a group multiply its sums, once
---*/
const uint n = thread_position_in_grid.x, token = thread_position_in_grid.y;
float total = 0;
for (int g = 0; g < K / GROUP; ++g) {
    float part = 0, ones = 0;
    for (int k = g * GROUP; k < (g + 1) * GROUP; ++k) {
        const float value = float(x[token * K + k]);
        part += value * float(w[n * (K / 8) + k / 8] >> (k % 8 * 4) & 15);
        ones += value;
    }
    const int group = n * (K / GROUP) + g;
    total += float(scales[group]) * part + float(biases[group]) * ones;
}
y[token * N + n] = T(total);
