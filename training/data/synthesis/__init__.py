"""Training data without judgments: queries, labels and orders of a teacher, of which only what agrees is kept.

The recipe is ReasonRank's (arXiv 2508.07050): pointwise labels and a listwise order with its thought, each a check of
the other.
"""
