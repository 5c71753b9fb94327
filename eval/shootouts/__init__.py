"""Shoot-outs: rerankers side by side on the same corpus, run, depth, seed and budget.

Their entries are YAML files, of which some lie beside the code.
"""
