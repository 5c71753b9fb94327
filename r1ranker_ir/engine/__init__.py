"""The engine drives many ranking programs against one backend, and counts calls, tokens and repairs.

What became of each request, and signs that a model does not rank, are worked out here.
"""
