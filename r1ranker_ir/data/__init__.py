"""Corpora, TREC runs and files of ranking requests, read from disk or from ir_datasets.

Nothing here knows a model.
"""
