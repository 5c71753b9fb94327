"""`make train-demo`: a weak start by SFT, then GRPO, and what it reached on held-out queries.

It trains the embedded model's architecture and takes some minutes on a CPU.
"""
