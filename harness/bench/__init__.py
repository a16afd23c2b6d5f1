"""`nightforge bench`: kernels, reads and the engine beside the memory, the disk, MLX and llama.cpp, in one run.

The search has a bench of its own (`harness.contest`): two arms, to decide. This one reports.
"""
