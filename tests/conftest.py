"""What all tests share: arithmetic on the CPU, so that results are the same on every machine."""

import mlx.core as mx

mx.set_default_device(mx.cpu)
