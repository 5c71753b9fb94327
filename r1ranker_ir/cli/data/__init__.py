"""The verbs `r1ranker data …`: training samples and ranking requests from every source.

Each verb has a file; the work is done in `r1ranker_ir.training.data` and `r1ranker_ir.adapters`.
"""
