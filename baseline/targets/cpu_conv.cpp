// The short convolution in front of a gated delta-net, with its activation, for the engine: not a variant, and not
// evolved. MLX's CPU build multiplies matrices for it, one a channel. Follows cpu_prelude.h and `constexpr long TAPS`.

// x [B, T + TAPS - 1, C], weight [TAPS, C] -> y [B, T, C] = silu of each channel's products with the taps, the first tap
// on the earliest token; C is a multiple of LANES. dims: B, T, C.
extern "C" void convolve(const void* const* inputs, void* const* outputs, const long* dims, int part, int parts) {
    const long batch = dims[0], tokens = dims[1], channels = dims[2];
    const auto *x = static_cast<const float*>(inputs[0]), *weight = static_cast<const float*>(inputs[1]);
    auto* y = static_cast<float*>(outputs[0]);
    const Range mine = share(channels / LANES, part, parts);
    for (long b = 0; b < batch; ++b)
        for (long t = 0; t < tokens; ++t) {
            const float* from = x + (b * (tokens + TAPS - 1) + t) * channels;
            float* to = y + (b * tokens + t) * channels;
            for (long c = mine.begin * LANES; c < mine.end * LANES; c += LANES) {
                vfloat total = {};
                for (long tap = 0; tap < TAPS; ++tap)
                    total += load<vfloat>(from + tap * channels + c) * load<vfloat>(weight + tap * channels + c);
                const vfloat active = total / (1.0f + exp_of(-total));
                std::memcpy(to + c, &active, sizeof(active));
            }
        }
}
