"""A checkpoint, a strategy, a prompt and a backend make a `Ranker`; two of them make a `Cascade`.

Names of rankers and of published systems are resolved here and nowhere else.
"""
