"""Whole runs: a first-stage run becomes ranking requests, is reranked into files, and leaves a trace.

Ray spreads the same work over many workers.
"""
