"""Benchmarks of speed: what each way to rank costs on one model, with answers forced so that all rank alike.

Made-up lists, meters and the naive loop that others are compared with live here.
"""
