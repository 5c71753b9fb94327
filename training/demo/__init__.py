"""`make train-demo`: a weak start by SFT, then GRPO, and what it reached on held-out queries.

Its data and completions are made here, of the Python installation's own documentation; it takes minutes on a CPU.
"""
